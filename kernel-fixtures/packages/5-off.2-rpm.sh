. ./words.sh

exits "no deb" 0 dpkg -P "$package_name"
exits "rpm" 0 rpm -U --nodeps ./one.rpm
check "it is loaded" "livepatch_one " "$(loaded)"
patched "as it is installed"
exits "a cumulative one" 0 rpm -U --nodeps ./two.rpm
check "it took the place" "livepatch_two " "$(loaded)"
check "where it lies" "livepatch_two.ko" "$(cd "$installed" && ls ./*.ko | cut -c3-)"
exits "erased" 0 rpm -e "$package_name"
check "its folder is gone" "" "$(ls "$installed" 2>/dev/null)"
check "it stays loaded" "livepatch_two " "$(loaded)"
exits "unload" 0 klpx-host unload livepatch_two
not_patched "without the livepatch"
