# Makes a named array, which gets the next free minor, and prints it. It is left: a freed minor would be no proof.
unit() {
    echo "md_$1" >/sys/module/md_mod/parameters/new_array
    cut -d: -f2 "/sys/block/md_$1/dev"
}

module md_mod
first=$(unit before1)
check "before: the counter counts" $((first + 1)) "$(unit before2)"
mark
load md-unit
check "patched: it goes on" $((first + 2)) "$(unit patched1)"
check "the new data starts anew" 1 "$(logged "klpx: first unit is $((first + 2))")"
check "patched: and on" $((first + 3)) "$(unit patched2)"
check "the new data changed" 1 "$(logged "klpx: second unit is $((first + 3))")"
unload md-unit
mark
check "unloaded: it goes on" $((first + 4)) "$(unit after)"
check "unloaded: nothing is said" 0 "$(logged "klpx:")"
for array in /sys/block/md_*; do echo clear >"$array/md/array_state"; done
