tracing=/sys/kernel/tracing
bad="unmapped kernel noncanonical edge null"
# SMAP, or what arm64 calls PAN and no file tells; the processor that QEMU emulates has it
case $(uname -m) in
aarch64) smap=1 ;;
*) smap=$(grep -cw smap /proc/cpuinfo) ;;
esac
[ "$smap" = 0 ] || smap=1

check "before: no such ioctl" "good=EINVAL" "$(userptr 0x4b58 good)"
load uaccess
mark
echo 1 >$tracing/events/printk/console/enable
# words: value read + 1, calls under the lock, static key, what it should be, SMAP by alternative, own per-cpu pointer,
# per-cpu read, last word read
result=$(userptr 0x4b58 good)
check "good pointer" "good=101,1,1,1,$smap,1,1,107" "$result"
check "WARN_ONCE warns" 1 "$(logged "klpx: expected warning")"
check "again" "good=101,2,1,1,$smap,1,1,107" "$(userptr 0x4b58 good)"
check "WARN_ONCE warns once" 1 "$(logged "klpx: expected warning")"
echo 0 >$tracing/events/printk/console/enable
check "the static call of the tracepoint is made" 2 "$(grep -c "klpx was here" $tracing/trace)"
check "and only while it is enabled" "good=101,3,1,1,$smap,1,1,107 2" "$(userptr 0x4b58 good) $(grep -c "klpx was here" $tracing/trace)"
check "faulting pointers" "unmapped=EFAULT kernel=EFAULT noncanonical=EFAULT edge=EFAULT null=EFAULT" "$(userptr 0x4b58 $bad)"

mark
check "pr_debug is silent" 0 "$(logged "klpx: called by")"
echo "func random_ioctl +p" >/proc/dynamic_debug/control
userptr 0x4b58 good >/dev/null
check "pr_debug speaks" 1 "$(logged "klpx: called by userptr")"
echo "func random_ioctl -p" >/proc/dynamic_debug/control
userptr 0x4b58 good >/dev/null
check "pr_debug is silent again" 1 "$(logged "klpx: called by userptr")"
unload uaccess
check "as before" "good=EINVAL" "$(userptr 0x4b58 good)"
