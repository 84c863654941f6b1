insmod klpx_meter.ko
insmod klpx_gauge.ko
check "before" "2 calls 1, scale of one 2" "$(cat /proc/klpx_gauge /proc/klpx_meter | tr '\n' ' ' | sed 's/ $//')"
load meter
check "both units, loaded before" "1006 calls 2, scale of one 3" "$(cat /proc/klpx_gauge /proc/klpx_meter | tr '\n' ' ' | sed 's/ $//')"
unload meter
check "as before" 6 "$(cat /proc/klpx_gauge)"
remove klpx_gauge
remove klpx_meter

load meter
insmod klpx_meter.ko
insmod klpx_gauge.ko
check "both units, loaded late" "1003 calls 1, scale of one 3" "$(cat /proc/klpx_gauge /proc/klpx_meter | tr '\n' ' ' | sed 's/ $//')"
unload meter

load gauge
check "who uses the export" "gauge 4" "$(cat /proc/klpx_gauge)"
unload gauge
check "as before again" 6 "$(cat /proc/klpx_gauge)"
remove klpx_gauge
remove klpx_meter
