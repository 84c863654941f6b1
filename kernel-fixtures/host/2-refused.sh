. ./words.sh

exits "for another release" 7 klpx-host load ./other-release.ko
said "klpx::other-release"
exits "for another build" 7 klpx-host load ./other-build.ko
said "klpx::other-build-id"
exits "no livepatch" 9 klpx-host load ./words.sh.ko
exits "the kernel refuses it" 7 klpx-host load ./gone.ko
said "klpx::load-refused"
said "version_proc_gone"
exits "one that is not cumulative" 0 klpx-host load ./more.ko
exits "status" 0 klpx-host status
exits "its functions are patched by another" 7 klpx-host load ./again.ko
said "klpx::patched-by-another"
said "vmlinux/version_proc_show,1: livepatch_more"
check "nothing else is loaded" "livepatch_more " "$(loaded)"
check "no mark is left" "" "$(ls $marks)"
exits "unload" 0 klpx-host unload livepatch_more
