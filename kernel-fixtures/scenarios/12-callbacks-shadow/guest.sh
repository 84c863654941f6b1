said() { since_mark | sed -n 's/.*klpx: //p' | tr '\n' ';'; }

mark
load callbacks
check "callbacks of patching, in order" "pre patch;post patch;" "$(said)"
check "the shadow variable is made" "klpx: read 1 times" "$(tail -n 1 /proc/loadavg)"
check "and found again" "klpx: read 2 times" "$(tail -n 1 /proc/loadavg)"
mark
unload callbacks
check "callbacks of unpatching, in order" "pre unpatch, shadow is there;post unpatch, no shadow;" "$(said)"
check "as before" 1 "$(wc -l </proc/loadavg)"
