control=/sys/kernel/debug/dynamic_debug/control

# A folder with a folder with a file.
image() {
    base64 -d <<END
aHNxcwMAAAAAAAAAAAACAAEAAAABABEAwAIBAAQAAABAAAAAAAAAAPUAAAAAAAAA7QAAAAAAAAD//////////2UAAAAAAAAAkgAA
AAAAAADHAAAAAAAAAN8AAAAAAAAAa2xweAorAHjaY2JYwsgABUwMqIAViBkZ3sLlGZHUSQMxM5o8MxItxSDBwAKkAZyXAuohAHja
Y2CAACY4zcyQlpmTCuUyMAKxAphmYkjJLAIALnIDCxCAYAAAAAAAAAAFAAABAAAAALUAAAAAAAAADgB42lNgQAUOUBoABRgAYc8A
AAAAAAAABIAAAAAA5wAAAAAAAAA=
END
}

# The block is read that no one has read before.
block=0
read_block() {
    dd if=/dev/dm-0 of=/dev/null bs=4096 skip=$block count=1 2>/dev/null
    block=$((block + 1000))
}
# Reads that the statistics have counted.
counted() { dmtool message klpx "@stats_print 0" | cut -d' ' -f2; }
entries() { grep -c "\[livepatch_module_keys\]squashfs_readdir" $control; }

load module-keys
module loop dm_zero squashfs
dmtool create klpx 1048576 zero
read_block
check "statistics are made" 0 "$(dmtool message klpx "@stats_create - /1")"
check "and count nothing yet" 0 "$(counted)"
read_block
matches "patched: a read is counted" "[1-9]*" "$(counted)"

image | dd of=/tmp/squashfs bs=4096 conv=sync 2>/dev/null
losetup /dev/loop0 /tmp/squashfs
mkdir -p /tmp/squashfs.d
mount -t squashfs -o ro /dev/loop0 /tmp/squashfs.d
check "messages can be switched by the livepatch's name" 2 "$(entries)"
mark
check "patched: a folder" dir "$(ls /tmp/squashfs.d)"
check "messages are off" 0 "$(logged "klpx: a folder of")"
echo "module livepatch_module_keys func squashfs_readdir +p" >$control
check "patched: another folder" file "$(ls /tmp/squashfs.d/dir)"
matches "messages are on" "[1-9]*" "$(logged "klpx: a folder of [0-9]* bytes")"

unload module-keys
check "its messages are gone" 0 "$(entries)"
before=$(counted)
read_block
matches "unloaded: a read is counted" "[1-9]*" $(($(counted) - before))
mark
check "unloaded: a folder" dir "$(ls /tmp/squashfs.d)"
load module-keys
check "messages come again" 2 "$(entries)"
check "patched again: a folder" dir "$(ls /tmp/squashfs.d)"
check "messages are off again" 0 "$(logged "klpx: a folder of")"
before=$(counted)
read_block
matches "patched again: a read is counted" "[1-9]*" $(($(counted) - before))
umount /tmp/squashfs.d
losetup -d /dev/loop0
dmtool remove klpx
remove dm_zero
remove dm_mod
unload module-keys
remove squashfs
