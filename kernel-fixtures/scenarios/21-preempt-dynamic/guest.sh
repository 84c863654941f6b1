says() { sed -n 's/^klpx //p' /proc/schedstat; }
counting() { echo "$1" >/proc/sys/kernel/sched_schedstats; }
mode=/sys/kernel/debug/sched/preempt
# Linux 7.2 has other modes than 6.12. The mode in parentheses is the current one.
current=$(sed 's/.*(\(.*\)).*/\1/' $mode)
modes=$(tr -d '()' <$mode)

counting 0
check "before" "" "$(says)"
load schedstat
check "patched: the static key is off" off "$(says)"
counting 1
check "patched: the static key is on" on "$(says)"
counting 0
check "patched: it is off again" off "$(says)"
matches "there are several modes of preemption" "[2-9]" "$(echo $modes | wc -w)"
for word in $modes; do
    echo $word >$mode
    matches "the static call is switched" "*($word)*" "$(cat $mode)"
    check "patched: preemption is $word" off "$(says)"
done
unload schedstat
check "as before" "" "$(says)"

# What was switched before the module is loaded counts too.
counting 1
echo full >$mode
load schedstat
check "patched: the key was on, preemption was full" on "$(says)"
unload schedstat
counting 0
echo $current >$mode
