. ./words.sh

exits "klpx-host" 0 dpkg -i ./klpx-host.deb
check "the unit runs at the next boot" enabled "$(systemctl is-enabled klpx-host.service)"
exits "a package for a kernel that is not installed" 0 dpkg -i ./other-release.deb
check "nobody says that it is not loaded" 0 "$(grep -c "not loaded" said)"
exits "a package for another build of this kernel" 0 dpkg -i ./other-build.deb
check "nothing is loaded" "" "$(loaded)"
exits "it can't be loaded by hand" 7 klpx-host load livepatch_one
said "klpx::other-build-id"

exits "a package for this kernel" 0 dpkg -i ./one.deb
check "it is loaded" "livepatch_one " "$(loaded)"
patched "as it is installed"
exits "status" 0 klpx-host status
said "mends CVE-2026-0001, CVE-2026-0002"
exits "list" 0 klpx-host list
said "$release  livepatch_one"
exits "the files are as they were packaged" 0 dpkg -V "$package_name"
