# What is patched: a for the command line, b for the load.
state() { echo "$(grep -c klpx-a /proc/cmdline)$(grep -c klpx-b /proc/loadavg)"; }

check "before" 00 "$(state)"
load both
check "both in one" 11 "$(state)"
unload both
check "as before" 00 "$(state)"

load first
check "the first" 10 "$(state)"
load both
check "cumulative" 11 "$(state)"
for _ in $(seq 100); do
    [ -d "$(livepatch_dir first)" ] || break
    usleep 100000
done
check "the first is disabled" no "$([ -d "$(livepatch_dir first)" ] && echo yes || echo no)"
remove livepatch_first
check "still cumulative" 11 "$(state)"
unload both
check "as before again" 00 "$(state)"
