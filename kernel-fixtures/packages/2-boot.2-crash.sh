# The machine goes down while the livepatch is in transition.
. ./words.sh

exits "unload" 0 klpx-host unload livepatch_two
sleeper
klpx-host load livepatch_two >/tmp/loading 2>&1 &
for _ in $(seq 300); do
    [ "$(cat /sys/kernel/livepatch/livepatch_two/transition 2>/dev/null)" = 1 ] && break
    usleep 50000
done
check "in transition" 1 "$(cat /sys/kernel/livepatch/livepatch_two/transition)"
crash
