# The unit runs at the next boot; what is loaded now stays. An upgrade leaves the unit as its user has it.
if command -v systemctl >/dev/null; then
    [ "$1" != 1 ] || systemctl --no-reload enable klpx-host.service >/dev/null 2>&1 || :
    systemctl daemon-reload >/dev/null 2>&1 || :
fi
