/*
 * Asks for a limit by two system calls, each a known number of times.
 *   rlimits GETRLIMITS PRLIMITS
 */
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct rlimit limit;
	struct { unsigned long long current, most; } limit64;
	int n;

	if (argc != 3)
		return 2;
	for (n = atoi(argv[1]); n > 0; n--)
		if (syscall(SYS_getrlimit, RLIMIT_NOFILE, &limit))
			return 1;
	for (n = atoi(argv[2]); n > 0; n--)
		if (syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit64))
			return 1;
	return 0;
}
