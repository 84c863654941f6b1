# With noclobber the shell opens files with O_EXCL; every other open allocates from the cache whose address is the constant.
exclusive() { (set -C; : > "$1") 2> /dev/null && echo yes || echo no; }

check "before" yes "$(exclusive /tmp/one)"
load exclusive
check "refused" no "$(exclusive /tmp/two)"
for n in 1 2 3 4 5 6 7 8; do cat /proc/version > "/tmp/version$n"; done
check "other files are opened" "$(cat /proc/version)" "$(cat /tmp/version8)"
unload exclusive
check "as before" yes "$(exclusive /tmp/two)"
