autoclear() {
    loop_file 0 64
    cat /sys/block/loop0/loop/autoclear
    losetup -d /dev/loop0
}

module loop
original=$(cat /proc/version)
check "before" 0 "$(autoclear)"
load loop-note
check "vmlinux calls the new function" klpx-vmlinux-1 "$(tail -n 1 /proc/version)"
check "the module calls it too, and it counts on" "0 klpx-loop-2" "$(autoclear)"
remove loop
check "without the module" klpx-vmlinux-3 "$(tail -n 1 /proc/version)"
module loop
check "the module came again" "0 klpx-loop-4" "$(autoclear)"
unload loop-note
check "as before" "$original" "$(cat /proc/version)"
check "the module as before" 0 "$(autoclear)"
remove loop
