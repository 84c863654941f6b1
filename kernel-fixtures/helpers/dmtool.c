/*
 * Makes and removes device-mapper devices of one target, and talks to them, with the ioctls of linux/dm-ioctl.h.
 *   dmtool create NAME SECTORS TARGET [PARAMETERS]
 *   dmtool message NAME TEXT       prints the answer
 *   dmtool remove NAME
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static union {
	struct dm_ioctl head;
	char room[16384];
} request;
static int control;

static void *begin(const char *name, unsigned int flags)
{
	memset(&request, 0, sizeof(request));
	request.head.version[0] = DM_VERSION_MAJOR;
	request.head.data_size = sizeof(request);
	request.head.data_start = sizeof(request.head);
	request.head.flags = flags;
	strncpy(request.head.name, name, sizeof(request.head.name) - 1);
	return &request.room[request.head.data_start];
}

static void run(unsigned long command, const char *what)
{
	if (ioctl(control, command, &request)) {
		fprintf(stderr, "dmtool: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static void create(const char *name, unsigned long long sectors, const char *type, const char *parameters)
{
	struct dm_target_spec *target;

	begin(name, 0);
	run(DM_DEV_CREATE, "create");
	target = begin(name, 0);
	request.head.target_count = 1;
	target->length = sectors;
	strncpy(target->target_type, type, sizeof(target->target_type) - 1);
	strcpy((char *)(target + 1), parameters);
	run(DM_TABLE_LOAD, "load");
	begin(name, 0);
	run(DM_DEV_SUSPEND, "resume");
}

static void message(const char *name, const char *text)
{
	struct dm_target_msg *to = begin(name, 0);

	strcpy(to->message, text);
	run(DM_TARGET_MSG, "message");
	if (request.head.flags & DM_DATA_OUT_FLAG)
		fputs(&request.room[request.head.data_start], stdout);
}

int main(int argc, char **argv)
{
	control = open("/dev/mapper/control", O_RDWR);
	if (control < 0 || argc < 3)
		return 2;
	if (!strcmp(argv[1], "create") && argc >= 5) {
		create(argv[2], strtoull(argv[3], NULL, 10), argv[4], argc > 5 ? argv[5] : "");
	} else if (!strcmp(argv[1], "message") && argc == 4) {
		message(argv[2], argv[3]);
	} else {
		begin(argv[2], 0);
		run(DM_DEV_REMOVE, "remove");
	}
	return 0;
}
