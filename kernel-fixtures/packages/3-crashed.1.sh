. ./words.sh

check "nothing is loaded" "" "$(loaded)"
not_patched "after a crash"
check "the unit says so" failed "$(systemctl is-active klpx-host.service)"
journalctl --unit klpx-host.service --boot --output cat >said
said "klpx::crash-mark"
exits "status" 15 klpx-host status
exits "when told" 0 klpx-host load --retry livepatch_two
patched "when told"
exits "status" 0 klpx-host status
