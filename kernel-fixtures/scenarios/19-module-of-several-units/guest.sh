# An image that ends where its first file should begin: magic, size (32), checksum, name.
loop_image() {
    loop_file 0 4
    printf '\055rom1fs-\000\000\000\040\055\047\035\106t' | dd of=/dev/loop0 conv=notrunc 2>/dev/null
}

# What mount says, and how often the kernel says so in the patched words.
mounts() {
    mark
    mount -t romfs -o ro,loud /dev/loop0 /tmp/image 2>&1 && umount /tmp/image
    echo "$(logged "Mounting image 't'") $(logged "(klpx)")"
}

mkdir -p /tmp/image
module loop
loop_image

module romfs
matches "before" "*Input/output error*1 0" "$(mounts)"
load romfs-bounds
matches "patched, the module was there first" "*No such device or address*1 1" "$(mounts)"
unload romfs-bounds
matches "as before" "*Input/output error*1 0" "$(mounts)"
remove romfs

load romfs-bounds
module romfs
matches "patched, the module came late" "*No such device or address*1 1" "$(mounts)"
unload romfs-bounds
matches "as before again" "*Input/output error*1 0" "$(mounts)"
remove romfs
losetup -d /dev/loop0
remove loop
