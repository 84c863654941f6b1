. ./words.sh

full() {
    dd if=/dev/zero of=/full bs=1M >/dev/null 2>&1
    dd if=/dev/zero of=/full.rest bs=512 >/dev/null 2>&1
}
exits "unload" 0 klpx-host unload livepatch_two
before=$(cd "$installed" && sha256sum ./*)
full
exits "install" 8 klpx-host install ./one.ko
said "No space left"
exits "at boot: a crash could not be noticed" 8 klpx-host load --installed
said "No space left"
check "nothing is loaded" "" "$(loaded)"
succeeds "a package is refused" sh -c '! dpkg -i ./three.deb'
check "what was installed is as it was" "$before" "$(cd "$installed" && sha256sum ./*)"
rm /full /full.rest
exits "with room" 0 dpkg -i ./three.deb
check "it is loaded" "livepatch_two " "$(loaded)"
patched "with room"
