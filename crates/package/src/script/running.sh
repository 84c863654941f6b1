# Whether this machine runs the very kernel that the livepatch is for, and what we change is that machine: not the
# image of another one in a folder, not a container.
runs_here() {
    [ "$(uname -r)" = "$RELEASE" ] || return 1
    [ "$(stat -Lc %d:%i / 2>/dev/null)" = "$(stat -Lc %d:%i /proc/1/root/. 2>/dev/null)" ] || return 1
    for mark in /run/systemd/container /run/.containerenv /.dockerenv; do
        [ ! -e "$mark" ] || return 1
    done
    case "$(od -An -v -tx1 /sys/kernel/notes 2>/dev/null | tr -d ' \n')" in
    *"$BUILD_ID"*) return 0 ;;
    *) return 1 ;;
    esac
}
