/*
 * Makes pipes on the first processor, one after the other, and says which inode number the last one has.
 *   inodes COUNT
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 1;
	struct stat status = { 0 };
	cpu_set_t first;
	int ends[2];

	CPU_ZERO(&first);
	CPU_SET(0, &first);
	if (sched_setaffinity(0, sizeof(first), &first))
		return 1;
	while (count-- > 0) {
		if (pipe(ends) || fstat(ends[0], &status))
			return 1;
		close(ends[0]);
		close(ends[1]);
	}
	printf("%lu\n", (unsigned long)status.st_ino);
	return 0;
}
