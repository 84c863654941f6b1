. ./words.sh

exits "nothing is installed" 0 klpx-host load --installed
exits "install" 0 klpx-host install ./one.ko
check "where it lies" "-rw-r--r-- livepatch_one.ko" "$(ls -l $installed | awk 'NF > 8 { print $1, $9 }')"
exits "for a kernel that is not there" 8 klpx-host install ./other-release.ko
said "klpx::kernel-not-installed"
exits "list" 0 klpx-host list
said "$release  livepatch_one  1        yes         not loaded"

sed 's/$/ klpx.livepatch=off/' /proc/cmdline >/tmp/cmdline
mount -o bind /tmp/cmdline /proc/cmdline
exits "the switch" 0 klpx-host load --installed
said "klpx.livepatch=off"
check "nothing is loaded" "" "$(loaded)"
umount /proc/cmdline

exits "at boot" 0 klpx-host load --installed
check "loaded" "livepatch_one " "$(loaded)"
exits "install a newer one" 0 klpx-host install ./two.ko
exits "the newest alone" 0 klpx-host load --installed
check "it took the place" "livepatch_two " "$(loaded)"
exits "list" 0 klpx-host list
said "livepatch_two  2        yes         enabled"
exits "uninstall" 0 klpx-host uninstall livepatch_one
exits "uninstall and unload" 0 klpx-host uninstall --unload livepatch_two
check "nothing is loaded" "" "$(loaded)"
check "nothing is installed" "" "$(ls $installed 2>/dev/null)"

# As if the machine had gone down: a mark that klpx-host wrote while it loaded two, of another boot.
[ -s /tmp/mark ] || fail "no mark was there while a livepatch was loaded"
sed "s/$(cat /proc/sys/kernel/random/boot_id)/00000000-0000-0000-0000-000000000000/" /tmp/mark >$marks/livepatch_two
klpx-host install ./two.ko
exits "a livepatch that crashed" 7 klpx-host load --installed
said "klpx::crash-mark"
said "klpx-host load --retry livepatch_two"
exits "status: a crash" 15 klpx-host status
check "nothing is loaded" "" "$(loaded)"
exits "again, when told" 0 klpx-host load --retry livepatch_two
exits "status: all is well" 0 klpx-host status
exits "uninstall and unload" 0 klpx-host uninstall --unload livepatch_two
