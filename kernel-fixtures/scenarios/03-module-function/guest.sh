autoclear() {
    loop_file 0 64
    cat /sys/block/loop0/loop/autoclear
    losetup -d /dev/loop0
}

module loop
check "before" 0 "$(autoclear)"
load loop-autoclear
check "patched, the module was there first" "0 (klpx)" "$(autoclear)"
remove loop
module loop
check "patched, the module went and came again" "0 (klpx)" "$(autoclear)"
unload loop-autoclear
check "as before" 0 "$(autoclear)"
remove loop

load loop-autoclear
module loop
check "patched, the module came late" "0 (klpx)" "$(autoclear)"
unload loop-autoclear
check "as before again" 0 "$(autoclear)"
remove loop
