drop() { echo "$1" >/proc/sys/vm/drop_caches; }

mark
drop 3
check "before: the kernel's own line" 1 "$(logged "drop_caches: 3")"
check "before: no other" 0 "$(logged "klpx:")"
drop 4
load drop-caches
mark
drop 3
check "patched" 1 "$(logged "klpx: drop 3")"
check "an existing static local keeps its value" 0 "$(logged "drop_caches: 3")"
unload drop-caches
mark
drop 3
check "as before" 0 "$(logged "klpx:")"
