# attaches FUNCTION: what the verifier says to a program that is called when the function is entered.
attaches() { attach "$1"; }

check "before: a function of the table" EINVAL "$(attaches migrate_disable)"
check "before: another" ok "$(attaches vfs_read)"
load attach
mark
check "patched: a function of the table" EINVAL "$(attaches migrate_disable)"
check "patched: its identifier is told" 1 "$(logged "klpx: nothing attaches to type $(attach -n migrate_disable)\$")"
check "patched: another" ok "$(attaches vfs_read)"
check "patched: which is not in the table" 1 "$(logged "klpx:")"
unload attach
mark
check "after" EINVAL "$(attaches migrate_disable)"
check "after: nothing is told" 0 "$(logged "klpx:")"
