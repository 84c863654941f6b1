# positions NAME: how often kallsyms has the name, in any form that a livepatch could mean.
positions() { awk -v name="$1" '$3 == name && NF == 3 { n++ } END { print n + 0 }' /proc/kallsyms; }

matches "s_show is there several times" "[2-9]" "$(positions s_show)"
# A local name that is a global one too: x86_64 has one, the arm64 kernel none.
case $(uname -m) in
x86_64)
    check "pt_regs_offset is a function and a variable" 2 "$(positions pt_regs_offset)"
    # offsetof(struct pt_regs, di) from the function, which lies behind the name that a variable has too.
    says="klpx: di lies at 112"
    ;;
*) says="klpx: no such name" ;;
esac
matches "dev_attr_size is there several times" "[2-9]" "$(positions dev_attr_size)"
check "before" 0 "$(grep -c "^klpx:" /proc/kallsyms)"
load kallsyms
check "the right s_show, the right pt_regs_offset" "$says" "$(grep "^klpx:" /proc/kallsyms)"
echo printk:console >/sys/kernel/tracing/set_event
check "another s_show still works" "printk:console" "$(cat /sys/kernel/tracing/set_event)"
echo >/sys/kernel/tracing/set_event
matches "and a third" "# tracer: nop*" "$(cat /sys/kernel/tracing/trace)"
unload kallsyms
check "as before" 0 "$(grep -c "^klpx:" /proc/kallsyms)"

module loop
original=$(cat /sys/block/loop0/range)
load genhd
check "the right dev_attr_size" "$original klpx-right" "$(cat /sys/block/loop0/range)"
unload genhd
check "as before" "$original" "$(cat /sys/block/loop0/range)"
remove loop
