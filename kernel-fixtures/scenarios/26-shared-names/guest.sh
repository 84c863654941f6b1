# goes_on WHAT BEFORE AFTER: inode numbers grow by few.
goes_on() {
    if [ "$3" -gt "$2" ] && [ "$3" -lt $(($2 + 16384)) ]; then pass "$1"; else fail "$1: $3 after $2"; fi
}

encrypted() {
    printf 'klpx says hello!!' |
        alg skcipher "ctr(aes-generic)" 000102030405060708090a0b0c0d0e0f f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff
}
hashed() { printf 'klpx says hello!!' | alg hash sha256-generic; }
path() { net mtu 10.9.0.1 "10.9.0.$1"; }

hash=ac9c50c883cf7d9b3477b6d1948b179d42230c894bd0791c749ecd5e742af77a
module dummy algif_hash algif_skcipher
ip link set lo up
ip link set dummy0 up
ip addr add 10.9.0.1/24 dev dummy0
inode=$(inodes 5000)
check "before: a path" 1500 "$(path 2)"
net too-big 10.9.0.1 10.9.0.2 1300
check "before: a shorter path is learnt" 1300 "$(path 2)"
check "before: a hash" $hash "$(hashed)"
check "before: an unknown protocol" EPROTONOSUPPORT "$(net stream 253)"
echo warm >/sys/kernel/reboot/mode
type=$(cat /sys/kernel/reboot/type)

mark
load enable
check "the module's own init ran the kernel's function" 0 "$(logged "klpx: .* brings")"
load shared
check "the second livepatch went through the new one" 1 "$(logged "klpx: livepatch_shared brings vmlinux")"

new=$(inodes 1)
goes_on "inode numbers go on" "$inode" "$new"
check "and are even" 0 $((new % 2))
inode=$(inodes 2000)
goes_on "and go on from batch to batch" "$new" "$inode"
check "the new counter began at its own value" 1 "$(logged "klpx: three inodes were listed")"

sleep 5000 &
sleeper=$!
usleep 300000
kill -STOP $sleeper
usleep 100000
kill -CONT $sleeper
usleep 300000
check "an interrupted sleep is told" 1 "$(logged "klpx: 499[0-9] seconds of a sleep are left")"
matches "and goes on" "*nanosleep*" "$(cat /proc/$sleeper/wchan)"
kill $sleeper

check "what was learnt is found with the same key" 1300 "$(path 2)"
net too-big 10.9.0.1 10.9.0.99 1200
matches "the new function hashes" "[1-9]*" "$(logged "klpx: an exception for 10.9.0.99")"
check "another path is learnt" 1200 "$(path 99)"

check "a switch" "warm keeps 75" "$(cat /sys/kernel/reboot/mode)"
check "its neighbour" "$type" "$(cat /sys/kernel/reboot/type)"
check "a hash" $hash "$(hashed)"
matches "by the new function" "[1-9]*" "$(logged "klpx: 17 bytes for a hash")"
check "a new instance of a cipher" 0dcbb79014215031e471b6625f7ac28c93 "$(encrypted)"
check "the rest of a block" 1 "$(logged "klpx: the last 1 bytes of aes-generic")"
check "a weak function" 6 "$(net stream 253)"
check "its caller's others" EPROTONOSUPPORT "$(net stream 252)"
check "a caller of an overridden one" 1 "$(grep -c "^PerCpu:" /proc/meminfo)"
matches "calls the one of the architecture" "[1-9]*" "$(grep -c "^DirectMap" /proc/meminfo)"
check "and not the weak one" 0 "$(grep -c "^Klpx" /proc/meminfo)"
matches "a patch from a mail" "* klpx" "$(cat /proc/uptime)"

unload shared
new=$(inodes 1)
goes_on "inode numbers go on without it" "$inode" "$new"
check "what was learnt with it is kept" "1300 1200" "$(path 2) $(path 99)"
check "a switch as before" warm "$(cat /sys/kernel/reboot/mode)"
check "a hash as before" $hash "$(hashed)"
load shared
inode=$(inodes 2000)
goes_on "inode numbers go on when it comes again" "$new" "$inode"
check "what was learnt is still found" "1300 1200" "$(path 2) $(path 99)"
unload enable
unload shared
ip link set dummy0 down
remove dummy
