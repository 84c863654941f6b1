# raid1_size is called from raid1_run, where a plain kernel inlines it, and by its address.
TRACING=/sys/kernel/tracing
module loop raid1
mknod /dev/md0 b 9 0
echo raid1_size >"$TRACING/set_ftrace_filter"
echo function >"$TRACING/current_tracer"

# starts WHEN BLOCKS: an array of that size, and both of its calls are seen.
starts() {
    echo >"$TRACING/trace"
    loop_file 0 4096
    loop_file 1 4096
    succeeds "$1: the array starts" mdtool run /dev/md0 1 /dev/loop0 /dev/loop1
    check "$1: calls from raid1_run that ftrace sees" 1 "$(grep -c ' raid1_size <-raid1_run' "$TRACING/trace")"
    check "$1: other calls that ftrace sees" 1 "$(grep ' raid1_size <-' "$TRACING/trace" | grep -vc '<-raid1_run')"
    check "$1: blocks of the array" "$2" "$(sed -n 's/^ *\([0-9]*\) blocks.*/\1/p' /proc/mdstat)"
    succeeds "$1: the array stops" mdtool stop /dev/md0
    losetup -d /dev/loop0
    losetup -d /dev/loop1
}

starts before 4096
load raid1-size
starts patched 2048
unload raid1-size
starts after 4096
echo nop >"$TRACING/current_tracer"
echo >"$TRACING/set_ftrace_filter"
remove raid1
remove loop
