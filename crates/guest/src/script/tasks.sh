# Sourced by what runs the tasks, behind guest.sh: every task in its own shell, and how it went. BASE is where the tasks
# are; it is empty in a guest without a disk.

say boot "$(cut -d' ' -f1 /proc/uptime)"
for directory in "$BASE"/scenarios/*; do
    [ -f "$directory/guest.sh" ] || continue
    export BASE SCENARIO="${directory##*/}"
    say begin "$SCENARIO"
    cd "$directory"
    timeout 120 sh -c '. "$BASE/lib/guest.sh"; . ./guest.sh' </dev/null >/tmp/out 2>&1
    status=$?
    # What a script printed is only of interest when it went wrong.
    [ $status = 0 ] || while read -r line; do say note "$line"; done </tmp/out
    [ $status = 0 ] || fail "the guest script ended with status $status"
    # A system on a disk may keep a livepatch from task to task.
    [ -n "$BASE" ] || leftovers
    say end "$SCENARIO"
done
say done
