if [ "$1" = 0 ] && command -v systemctl >/dev/null; then
    systemctl --no-reload disable klpx-host.service >/dev/null 2>&1 || :
fi
