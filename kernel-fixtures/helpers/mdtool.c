/*
 * Makes and stops md arrays without metadata, with the ioctls of linux/raid/md_u.h.
 *   mdtool run DEVICE LEVEL MEMBER...   make an array and start it
 *   mdtool stop DEVICE
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/major.h>
#include <linux/types.h>
#include <linux/raid/md_p.h>
#include <linux/raid/md_u.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static int fail(const char *what)
{
	fprintf(stderr, "mdtool: %s: %s\n", what, strerror(errno));
	return 1;
}

static int run(int md, int level, int count, char **members)
{
	mdu_array_info_t array;
	int i;

	memset(&array, 0, sizeof(array));
	array.major_version = 0;
	array.minor_version = 90;
	array.level = level;
	array.raid_disks = count;
	array.nr_disks = count;
	array.not_persistent = 1;
	array.state = 1;
	array.chunk_size = level ? 0 : 65536;
	if (level == 0)
		array.chunk_size = 65536;
	if (ioctl(md, SET_ARRAY_INFO, &array))
		return fail("SET_ARRAY_INFO");
	for (i = 0; i < count; i++) {
		mdu_disk_info_t disk;
		struct stat st;

		if (stat(members[i], &st))
			return fail(members[i]);
		memset(&disk, 0, sizeof(disk));
		disk.number = i;
		disk.raid_disk = i;
		disk.major = major(st.st_rdev);
		disk.minor = minor(st.st_rdev);
		disk.state = (1 << MD_DISK_ACTIVE) | (1 << MD_DISK_SYNC);
		if (ioctl(md, ADD_NEW_DISK, &disk))
			return fail("ADD_NEW_DISK");
	}
	if (ioctl(md, RUN_ARRAY, NULL))
		return fail("RUN_ARRAY");
	return 0;
}

int main(int argc, char **argv)
{
	int md;

	if (argc < 3)
		return 2;
	md = open(argv[2], O_RDWR);
	if (md < 0)
		return fail(argv[2]);
	if (!strcmp(argv[1], "run") && argc > 4)
		return run(md, atoi(argv[3]), argc - 4, argv + 4);
	if (!strcmp(argv[1], "stop"))
		return ioctl(md, STOP_ARRAY, NULL) ? fail("STOP_ARRAY") : 0;
	return 2;
}
