limit() { cat /proc/sys/fs/nr_open; }

check "before" 1048576 "$(limit)"
load nr-open
check "the limit is lower" 524288 "$(limit)"
unload nr-open
check "as before" 1048576 "$(limit)"
