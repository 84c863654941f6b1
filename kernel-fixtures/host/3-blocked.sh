. ./words.sh

# The kernel wakes tasks that sleep after 15 seconds: the time must be over before.
sleeper
klpx-host load --timeout 9 --json ./two.ko >json 2>said &
loader=$!
usleep 2000000
exits "status: in transition" 13 klpx-host status
said "livepatch_two: in transition, being enabled"
# The kernel leaves functions of the scheduler, and do_nanosleep is one, out of the stacks that it shows.
said "sleep (process $SLEEPER) sleeps in hrtimer_nanosleep"
cp $marks/livepatch_two /tmp/mark
wait $loader
check "the transition is taken back" 10 $?
exits "for programs" 0 grep -q '"outcome": "reverted"' json
exits "with the task" 0 grep -q '"sleeps_in": "hrtimer_nanosleep"' json
check "nothing is loaded" "" "$(loaded)"
check "no mark is left" "" "$(ls $marks)"
exits "status: nothing is loaded" 12 klpx-host status

klpx-host load --timeout 7 ./two.ko >said 2>&1
check "taken back again" 10 $?
for text in "after 5 s it waits for 1 task" "the transition does not end, it is taken back" \
    "klpx::transition-reverted" "hrtimer_nanosleep+"; do
    said "$text"
done
exits "by force" 0 klpx-host load --timeout 3 --force ./two.ko
said "note: the transition is forced"
exits "status of a forced one" 0 klpx-host status
said "its transition was forced"
kill $SLEEPER
wait $SLEEPER 2>/dev/null
exits "unload" 0 klpx-host unload livepatch_two

sleeper
exits "time enough" 0 klpx-host load --timeout 60 ./two.ko
said "livepatch_two is loaded"
kill $SLEEPER
exits "unload" 0 klpx-host unload livepatch_two
