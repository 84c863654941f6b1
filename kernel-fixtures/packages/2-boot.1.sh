. ./words.sh

check "the unit ran" active "$(systemctl is-active klpx-host.service)"
check "it is loaded" "livepatch_one " "$(loaded)"
patched "at boot"

# Somebody looks all the time: the fix is never away.
while [ ! -f /tmp/enough ]; do
    grep -q "$line" /proc/version || echo "not patched"
    usleep 20000
done >/tmp/gaps &
looks=$!
exits "a cumulative one" 0 dpkg -i ./two.deb
touch /tmp/enough
wait $looks
check "the fix was never away" "" "$(cat /tmp/gaps)"
check "it took the place" "livepatch_two " "$(loaded)"
patched "with the new one"
check "where it lies" "livepatch_two.ko" "$(cd "$installed" && ls ./*.ko | cut -c3-)"
exits "the same again" 0 dpkg -i ./two.deb
check "still there" "livepatch_two " "$(loaded)"
