# The kernel loads signed modules only, and does not know our key.
. ./words.sh

check "the unit says so" failed "$(systemctl is-active klpx-host.service)"
journalctl --unit klpx-host.service --boot --output cat >said
said "klpx::load-refused"
said "Loading of module with unavailable key is rejected"
exits "one without a signature" 7 klpx-host load ./unsigned.ko
said "klpx::unsigned"
exits "one that was changed after it was signed" 7 klpx-host load ./changed.ko
said "klpx::load-refused"
check "nothing is loaded" "" "$(loaded)"
not_patched "signatures are enforced"
