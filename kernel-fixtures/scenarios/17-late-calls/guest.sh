# attaches: a file becomes a block device and ceases to be one, by functions that lo_ioctl calls.
attaches() {
    mark
    loop_file 0 64
    check "$1: the device has its size" 128 "$(cat /sys/block/loop0/size)"
    losetup -d /dev/loop0
    check "$1" "$2" "$(logged "klpx: a file is attached")"
}

module loop
attaches "before" 0
remove loop
load loop-ioctl
module loop
attaches "patched, the module came late" 1
unload loop-ioctl
attaches "as before" 0
remove loop
