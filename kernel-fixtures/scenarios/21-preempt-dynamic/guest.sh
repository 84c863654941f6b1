says() { sed -n 's/^klpx //p' /proc/schedstat; }
counting() { echo "$1" >/proc/sys/kernel/sched_schedstats; }
mode=/sys/kernel/debug/sched/preempt

counting 0
check "before" "" "$(says)"
load schedstat
check "patched: the static key is off" off "$(says)"
counting 1
check "patched: the static key is on" on "$(says)"
counting 0
check "patched: it is off again" off "$(says)"
for word in full none voluntary; do
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
echo voluntary >$mode
