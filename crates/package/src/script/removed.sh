link="/var/lib/kpatch/$RELEASE/$NAME.ko"
if [ -L "$link" ] && [ ! -e "$link" ]; then
    rm -f "$link"
    rmdir "/var/lib/kpatch/$RELEASE" 2>/dev/null || true
fi
