tracing=/sys/kernel/tracing

# The work is deferrable: an idle processor would let it wait.
busy() { for _ in $(seq "$1"); do usleep 50000; cat /proc/stat >/dev/null; done; }

mark
busy 30
check "before" 0 "$(logged "klpx: shepherd")"
load vmstat
mark
busy 80
matches "patched: the work runs" "[1-9]*" "$(logged "klpx: shepherd")"
unload vmstat
# Whatever stood in the module's memory must be gone for good.
for _ in 1 2 3; do insmod /modules/raid0.ko; rmmod raid0; done
mark
echo vmstat_shepherd >$tracing/set_ftrace_filter
echo function >$tracing/current_tracer
busy 80
matches "after: the original runs" "[1-9]*" "$(grep -c "vmstat_shepherd <-" $tracing/trace)"
echo nop >$tracing/current_tracer
check "after: the original is silent" 0 "$(logged "klpx: shepherd")"
echo >$tracing/set_ftrace_filter
