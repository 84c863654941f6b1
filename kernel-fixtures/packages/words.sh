# Sourced by the tasks of the packages, behind guest.sh and host/words.sh. Each task has the same files: packages of
# livepatch one and of two, which is cumulative, and of the livepatches that must not be loaded.

line="This line comes from a livepatch made by klpx."

# patched WHAT: the running kernel has the fix.
patched() { check "$1: the kernel has the fix" 1 "$(grep -c "$line" /proc/version)"; }
not_patched() { check "$1: the kernel is as it was" 0 "$(grep -c "$line" /proc/version)"; }

package_name=livepatch-$release
