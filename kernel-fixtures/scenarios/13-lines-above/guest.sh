time=/sys/module/printk/parameters/time
original=$(cat $time)
load params
check "patched" "$original (klpx)" "$(cat $time)"
unload params
check "as before" "$original" "$(cat $time)"
