original=$(cat /proc/cmdline)
load new-file
check "the new file's function" "klpx: one" "$(tail -n 1 /proc/cmdline)"
check "its data" "klpx: two" "$(tail -n 1 /proc/cmdline)"
cat /proc/cmdline >/dev/null
check "its table" "klpx: many" "$(tail -n 1 /proc/cmdline)"
check "the rest is as before" "$original" "$(head -n 1 /proc/cmdline)"
unload new-file
check "as before" "$original" "$(cat /proc/cmdline)"
