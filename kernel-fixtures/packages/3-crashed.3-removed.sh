. ./words.sh

exits "removed" 0 dpkg -r "$package_name"
check "its folder is gone" "" "$(ls "$installed" 2>/dev/null)"
check "it stays loaded" "livepatch_two " "$(loaded)"
patched "without its package"
exits "again" 0 dpkg -i ./two.deb
exits "removed from the kernel, too" 0 env KLPX_UNLOAD=yes dpkg -r "$package_name"
check "nothing is loaded" "" "$(loaded)"
not_patched "without the livepatch"
exits "for the next boots" 0 dpkg -i ./two.deb
exits "klpx-host goes only with the packages that need it" 1 dpkg -r klpx-host
exits "or when told" 0 dpkg -r --force-depends klpx-host
check "the livepatch stays loaded" "livepatch_two " "$(loaded)"
exits "klpx-host comes" 0 dpkg -i ./klpx-host.deb
