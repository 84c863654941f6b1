module loop raid1
mknod /dev/md0 b 9 0

starts_and_stops() {
    loop_file 0 4096
    loop_file 1 4096
    succeeds "$1: the array starts" mdtool run /dev/md0 1 /dev/loop0 /dev/loop1
    matches "$1: it is active" "*md0 : active raid1*" "$(cat /proc/mdstat)"
    echo "$1" | dd of=/dev/md0 bs=512 conv=sync 2>/dev/null
    check "$1: it holds data" "$1" "$(dd if=/dev/md0 bs=512 count=1 2>/dev/null | tr -d '\0')"
    succeeds "$1: the array stops" mdtool stop /dev/md0
    losetup -d /dev/loop0
    losetup -d /dev/loop1
}

starts_and_stops before
load md-run
matches "ftrace knows" "md_run *I*" "$(grep '^md_run ' /sys/kernel/tracing/enabled_functions)"
starts_and_stops patched
unload md-run
check "ftrace has let go" 0 "$(grep -c '^md_run ' /sys/kernel/tracing/enabled_functions)"
starts_and_stops after
remove raid1
remove loop
