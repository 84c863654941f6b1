sizelimit() {
    loop_file 0 64
    cat /sys/block/loop0/loop/sizelimit
    losetup -d /dev/loop0
}

module nls_base crc_itu_t loop
check "before" 0 "$(sizelimit)"
load loop-nls
check "the other module's function answers" "0 klpx-2-233" "$(sizelimit)"
unload loop-nls
check "as before" 0 "$(sizelimit)"
remove loop

load loop-nls
module loop
check "late" "0 klpx-2-233" "$(sizelimit)"
unload loop-nls
remove loop
for name in nls_base crc_itu_t; do [ ! -f "/modules/$name.ko" ] || remove $name; done
