# Sourced by init and by every task: the words that tasks are written in. BASE is where the guest's own files are.
# Verdicts go through the kernel log, so that they keep their place among the kernel's own lines.

say() { echo "KLPX-GUEST: $*" >/dev/kmsg; }
pass() { say ok "$*"; }
fail() { say FAIL "$*"; }

# check WHAT EXPECTED ACTUAL
check() {
    if [ "$2" = "$3" ]; then pass "$1"; else fail "$1: expected '$2', got '$3'"; fi
}

# matches WHAT GLOB ACTUAL
matches() {
    case "$3" in
    $2) pass "$1" ;;
    *) fail "$1: expected something like '$2', got '$3'" ;;
    esac
}

# succeeds WHAT COMMAND...
succeeds() {
    what=$1
    shift
    if "$@"; then pass "$what"; else fail "$what: status $? from: $*"; fi
}

# Starts a new stretch of the kernel log, which since_mark shows.
mark() {
    MARK="klpx-mark-$(cut -d' ' -f1 /proc/uptime)-$$-$((MARKS = ${MARKS:-0} + 1))"
    echo "$MARK" >/dev/kmsg
}
since_mark() { dmesg | sed "1,/$MARK/d"; }
logged() { since_mark | grep -c -- "$1"; }

livepatch_dir() { echo "/sys/kernel/livepatch/livepatch_$(echo "$1" | tr - _)"; }

# settled NAME: waits until its transition is over.
settled() {
    directory=$(livepatch_dir "$1")
    for _ in $(seq 300); do
        [ "$(cat "$directory/transition" 2>/dev/null || echo 0)" = 0 ] && return 0
        usleep 100000
    done
    return 1
}

# The functions that a loaded livepatch replaces, one "object/function" a line, without positions and LTO hashes.
replaced() {
    directory=$(livepatch_dir "$1")
    for function in "$directory"/*/*,*; do
        [ -d "$function" ] || continue
        echo "${function#"$directory"/}"
    done | sed 's/,[0-9]*$//; s/\.llvm\.[0-9]*$//' | sort
}

# load NAME: insmod, transition over, replaces what the scenario's data says.
load() {
    if ! insmod "livepatch-$1.ko"; then
        fail "load $1: insmod"
        exit 1
    fi
    if settled "$1"; then pass "load $1"; else fail "load $1: still in transition"; fi
    check "$1 is enabled" 1 "$(cat "$(livepatch_dir "$1")/enabled")"
    check "$1 replaces what it should" "$(cat "replaces-$1")" "$(replaced "$1")"
}

# unload NAME: disable, transition over, rmmod.
unload() {
    directory=$(livepatch_dir "$1")
    echo 0 >"$directory/enabled"
    for _ in $(seq 300); do
        [ -d "$directory" ] || break
        usleep 100000
    done
    if [ -d "$directory" ]; then fail "unload $1: still in transition"; fi
    remove "livepatch_$(echo "$1" | tr - _)" && pass "unload $1"
}

# remove MODULE: rmmod, with patience for the last reference.
remove() {
    for _ in $(seq 50); do
        rmmod "$1" 2>/dev/null && return 0
        usleep 100000
    done
    fail "rmmod $1"
    return 1
}

# module NAME...: insmod unless it is there, after what it needs. A module that is built in has no file.
module() {
    for wanted in "$@"; do
        [ -f "$BASE/modules/$wanted.chain" ] || continue
        while read -r name; do
            [ -d "/sys/module/$name" ] || insmod "$BASE/modules/$name.ko" || fail "insmod $name"
        done <"$BASE/modules/$wanted.chain"
    done
}

# loop_file NUMBER KIB: a loop device over a fresh file in memory.
loop_file() {
    dd if=/dev/zero of="/tmp/disk$1" bs=1024 count="$2" 2>/dev/null
    losetup "/dev/loop$1" "/tmp/disk$1"
}

# crash: the machine goes down as it is, which ends the task and the guest.
crash() {
    say end "$SCENARIO"
    say done
    sync
    echo b >/proc/sysrq-trigger
}

# Cleans up behind a task; a livepatch that it left behind is its failure.
leftovers() {
    for directory in /sys/kernel/livepatch/*; do
        [ -d "$directory" ] || continue
        name="${directory##*/}"
        fail "$name was left loaded"
        [ "$(cat "$directory/enabled")" = 0 ] || echo 0 >"$directory/enabled"
        usleep 3000000
        rmmod "$name"
    done
}
