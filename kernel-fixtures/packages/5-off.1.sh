. ./words.sh

check "the unit did not run" inactive "$(systemctl is-active klpx-host.service)"
check "nothing is loaded" "" "$(loaded)"
exits "nor by hand" 0 klpx-host load --installed
said "klpx.livepatch=off"
