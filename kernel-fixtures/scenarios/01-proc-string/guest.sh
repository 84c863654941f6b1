line="This line comes from a livepatch made by klpx."

check "before" 0 "$(grep -c "$line" /proc/version)"
original=$(cat /proc/version)
load version
check "patched" 1 "$(grep -c "$line" /proc/version)"
check "the rest is as before" "$original" "$(head -n 1 /proc/version)"
unload version
check "as before" "$original" "$(cat /proc/version)"
