set_to() { hostname "$1" 2>/dev/null && hostname || echo "not $1"; }

check "before" refused "$(set_to refused)"
check "before: another" guest "$(set_to guest)"
load sethostname
check "patched" "not refused" "$(set_to refused)"
check "patched: another" other "$(set_to other)"
unload sethostname
check "as before" refused "$(set_to refused)"
