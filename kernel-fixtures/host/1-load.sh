. ./words.sh
line="This line comes from a livepatch made by klpx."

exits "status: nothing is loaded" 12 klpx-host status
exits "check" 0 klpx-host check ./one.ko
exits "load" 0 klpx-host load ./one.ko
said "livepatch_one is loaded"
check "patched" 1 "$(grep -c "$line" /proc/version)"
check "no mark is left" "" "$(ls $marks)"
exits "load again" 0 klpx-host load ./one.ko
said "is loaded already"
exits "status" 0 klpx-host status
for text in "livepatch_one: enabled" "mends CVE-2026-0001, CVE-2026-0002" "version 1" "one of the tests" \
    "vmlinux/version_proc_show,1"; do
    said "$text"
done
exits "status for programs" 0 klpx-host status --json
said '"state": "enabled"'
exits "a livepatch of the same name" 7 klpx-host load ./renamed.ko
said "klpx::name-taken"

exits "a cumulative one takes its place" 0 klpx-host load ./two.ko
said "it replaced livepatch_one"
check "the module that was replaced is gone" "livepatch_two " "$(loaded)"
check "patched by the other" 1 "$(grep -c "$line" /proc/version)"
exits "unload" 0 klpx-host unload livepatch-two
check "nothing is loaded" "" "$(loaded)"
check "as before" 0 "$(grep -c "$line" /proc/version)"
exits "unload what is not loaded" 2 klpx-host unload livepatch_two
