if command -v kpatch >/dev/null && [ -d /var/lib/kpatch ]; then
    mkdir -p "/var/lib/kpatch/$RELEASE"
    ln -sf "$FOLDER/$NAME.ko" "/var/lib/kpatch/$RELEASE/$NAME.ko"
fi
if runs_here && command -v klpx-host >/dev/null; then
    klpx-host load "$FOLDER/$NAME.ko" ||
        echo "the livepatch is installed, and not loaded: klpx-host load $FOLDER/$NAME.ko" >&2
fi
