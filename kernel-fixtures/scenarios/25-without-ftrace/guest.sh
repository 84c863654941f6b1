# Where a sleeping process has its stack, as /proc tells.
stack_of() { cut -d' ' -f8 "/proc/$1/syscall"; }

sleep 1000 &
sleeper=$!
usleep 200000
matches "before" "0x7f*" "$(stack_of $sleeper)"
load place
check "patched" 0x5a5a "$(stack_of $sleeper)"
unload place
matches "after" "0x7f*" "$(stack_of $sleeper)"
kill $sleeper
