array() {
    loop_file 0 4096
    loop_file 1 4096
    [ -b /dev/md0 ] || mknod /dev/md0 b 9 0
    succeeds "the array starts" mdtool run /dev/md0 1 /dev/loop0 /dev/loop1
}
no_array() {
    succeeds "the array stops" mdtool stop /dev/md0
    losetup -d /dev/loop0
    losetup -d /dev/loop1
}

module loop raid1
array
check "before" 0 "$(grep -c klpx /proc/mdstat)"
load md-note
status=$(cat /proc/mdstat)
matches "vmlinux calls the new function" "*klpx-vmlinux-1*" "$status"
matches "the module calls it too, and it counts on" "*[[]UU[]] klpx-raid1-2*" "$status"
no_array
remove raid1
module raid1
array
matches "the module came again" "*klpx-vmlinux-3*[[]UU[]] klpx-raid1-4*" "$(cat /proc/mdstat)"
unload md-note
check "as before" 0 "$(grep -c klpx /proc/mdstat)"
no_array
remove raid1
remove loop
