# A root that is not the machine's: packages come and go, and the kernel is let alone.
. ./words.sh

module overlay
mkdir -p /run/other /run/over
mount -t tmpfs over /run/over
mkdir /run/over/upper /run/over/work
succeeds "another root" mount -t overlay overlay -o lowerdir=/,upperdir=/run/over/upper,workdir=/run/over/work /run/other
for place in dev proc run sys; do mount -o rbind "/$place" "/run/other/$place"; done
inside() { chroot /run/other sh -c "cd $PWD && $*"; }

exits "klpx-host" 0 inside dpkg -i ./klpx-host.deb
for package in one two; do
    exits "dpkg: $package" 0 inside dpkg -i ./$package.deb
    check "nobody says that it is not loaded" 0 "$(grep -c "not loaded" said)"
    check "where it lies" "livepatch_$package.ko" "$(cd /run/other$installed && ls ./*.ko | cut -c3-)"
done
exits "dpkg: removed" 0 inside dpkg -r "$package_name"
check "its folder is gone" "" "$(ls /run/other$installed 2>/dev/null)"
for package in one two; do
    exits "rpm: $package" 0 inside rpm -U --nodeps ./$package.rpm
    check "where it lies" "livepatch_$package.ko" "$(cd /run/other$installed && ls ./*.ko | cut -c3-)"
done
exits "rpm: erased" 0 inside rpm -e "$package_name"
check "its folder is gone" "" "$(ls /run/other$installed 2>/dev/null)"
check "nothing is loaded" "" "$(loaded)"
not_patched "after all that"
umount -l /run/other
