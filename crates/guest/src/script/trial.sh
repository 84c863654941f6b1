# Sourced by the tasks of a trial, behind guest.sh: the words for one livepatch. NAME is the kernel's name of it.

folder=/sys/kernel/livepatch/$NAME

# ended FOLDER: waits a minute until its transition is over, then names the tasks that keep it from ending.
ended() {
    for _ in $(seq 600); do
        [ "$(cat "$1/transition" 2>/dev/null || echo 0)" = 0 ] && return 0
        usleep 100000
    done
    wanted=$(cat "$1/enabled")
    for task in /proc/[0-9]*/task/[0-9]*; do
        state=$(cat "$task/patch_state" 2>/dev/null) || continue
        [ "$state" = -1 ] || [ "$state" = "$wanted" ] && continue
        say note "waits for $(cat "$task/comm") (task ${task##*/}): $(sed 's/^[^ ]* //' "$task/stack" | head -n 8 | tr '\n' ' ')"
    done
    return 1
}

# targets: loads the modules that it patches, those that the kernel has.
targets() {
    while read -r name; do module "$name"; done <targets
}

# patched: every function of an object that is loaded is in the folder, and the object is patched.
patched() {
    while read -r function; do
        object=${function%%/*}
        [ "$object" = vmlinux ] || [ -d "/sys/module/$object" ] || continue
        if [ -d "$folder/$function" ]; then pass "replaces $function"; else fail "does not replace $function"; fi
        [ -f "$folder/$object/patched" ] && check "$object is patched" 1 "$(cat "$folder/$object/patched")"
    done <functions
}

# load: insmod, transition over, everything replaced.
load() {
    mark
    if ! insmod livepatch.ko; then
        fail "insmod: the kernel refuses it"
        since_mark | tail -n 5 | while read -r line; do say note "$line"; done
        exit 0
    fi
    pass "insmod"
    if ended "$folder"; then pass "the transition ends"; else fail "the transition does not end"; fi
    check "enabled" 1 "$(cat "$folder/enabled")"
    patched
}

# unload: disable, transition over, rmmod, nothing left.
unload() {
    echo 0 >"$folder/enabled"
    for _ in $(seq 600); do
        [ -d "$folder" ] || break
        usleep 100000
    done
    if [ -d "$folder" ]; then
        fail "the transition back does not end"
        ended "$folder"
    else
        pass "the transition back ends"
    fi
    remove "$NAME" && pass "rmmod"
}

# says WHEN: what the commands of the file WHEN print is what they should.
says() {
    [ -f "$1" ] || return 0
    while IFS='	' read -r command pattern; do
        matches "$1: $command" "$pattern" "$(sh -c "$command" 2>&1)"
    done <"$1"
}
