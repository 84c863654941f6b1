# A livepatch stays in the running kernel unless it is asked to go: without it the machine has the fault again.
if [ "${KLPX_UNLOAD:-no}" = yes ] && runs_here && command -v klpx-host >/dev/null; then
    klpx-host unload "$NAME"
fi
