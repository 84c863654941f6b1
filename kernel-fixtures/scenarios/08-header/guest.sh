# 1,000,000,000 seconds are 31 years.
file() { cut -d. -f1 /proc/uptime; }
big() { [ "$1" -ge 1000000000 ] && echo big || echo small; }

check "before: /proc/uptime" small "$(big "$(file)")"
matches "before: sysinfo" "*up *min*" "$(uptime)"
load boottime
check "patched: /proc/uptime" big "$(big "$(file)")"
matches "patched: sysinfo" "*up 11574 days*" "$(uptime)"
unload boottime
check "after: /proc/uptime" small "$(big "$(file)")"
matches "after: sysinfo" "*up *min*" "$(uptime)"
