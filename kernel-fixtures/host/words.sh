# Sourced by the tasks of klpx-host, behind guest.sh.

release=$(uname -r)
installed=/usr/lib/modules/$release/livepatch
marks=/var/lib/klpx/loading
mkdir -p "/usr/lib/modules/$release"

# exits WHAT CODE COMMAND...: the command ends with this exit code. What it said is in ./said.
exits() {
    what=$1
    code=$2
    shift 2
    "$@" >said 2>&1
    status=$?
    check "$what" "$code" $status
    [ $status = "$code" ] || while read -r one; do say note "$one"; done <said
}

# said TEXT: the last command said it.
said() {
    if grep -q -- "$1" said; then
        pass "it says: $1"
    else
        fail "it does not say: $1"
        while read -r one; do say note "$one"; done <said
    fi
}

# loaded: the modules of livepatches that are loaded.
loaded() { sed -n 's/^\(livepatch_[^ ]*\) .*/\1/p' /proc/modules | sort | tr '\n' ' '; }

# sleeper: starts a task that sleeps in do_nanosleep for longer than any test.
sleeper() {
    sleep 5000 &
    SLEEPER=$!
    usleep 500000
}
