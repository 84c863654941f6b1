/*
 * Calls the ioctl that scenario 06 adds to /dev/urandom, with good and with faulting pointers, and prints one word a call:
 * the value that came back, or the name of the error.
 *   userptr COMMAND POINTER...     POINTER: good, unmapped, kernel, noncanonical, edge, null
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

/* What the ioctl reads and writes back: eight words. */
static uint64_t good[8];

static void *pointer(const char *name)
{
	if (!strcmp(name, "good"))
		return good;
	if (!strcmp(name, "kernel"))
		return (void *)0xffff888000001000ul;
	if (!strcmp(name, "noncanonical"))
		return (void *)0x8000000000001000ul;
	if (!strcmp(name, "null"))
		return NULL;
	if (!strcmp(name, "edge")) {
		/* the last bytes of a page, with nothing mapped behind it */
		char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		munmap(pages + 4096, 4096);
		return pages + 4096 - 8;
	}
	if (!strcmp(name, "unmapped")) {
		void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		munmap(page, 4096);
		return page;
	}
	exit(2);
}

int main(int argc, char **argv)
{
	int fd = open("/dev/urandom", O_RDWR);
	int i;

	if (fd < 0 || argc < 3)
		return 2;
	for (i = 2; i < argc; i++) {
		uint64_t *p = pointer(argv[i]);
		int k, ret;

		for (k = 0; k < 8; k++)
			good[k] = 100 + k;
		errno = 0;
		ret = ioctl(fd, strtoul(argv[1], NULL, 0), p);
		printf("%s%s=", i > 2 ? " " : "", argv[i]);
		if (ret >= 0 && p == good)
			for (k = 0; k < 8; k++)
				printf("%s%llu", k ? "," : "", (unsigned long long)good[k]);
		else if (ret >= 0)
			printf("%d", ret);
		else
			printf("%s", errno == EFAULT ? "EFAULT" : errno == EINVAL ? "EINVAL" : strerror(errno));
	}
	printf("\n");
	return 0;
}
