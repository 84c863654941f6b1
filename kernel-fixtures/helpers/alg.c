/*
 * Lets the kernel's crypto code work on standard input, and prints the result in hex.
 *   alg hash NAME
 *   alg skcipher NAME KEY IV       key and initialisation vector in hex; encrypts
 */
#include <errno.h>
#include <linux/if_alg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char *what)
{
	fprintf(stderr, "alg: %s: %s\n", what, strerror(errno));
	return 1;
}

static size_t from_hex(unsigned char *to, size_t room, const char *hex)
{
	size_t n = 0;

	for (; n < room && sscanf(hex + 2 * n, "%2hhx", &to[n]) == 1; n++)
		;
	return n;
}

/* Says that what follows is to be encrypted. */
static int announce(int fd, const char *hex)
{
	union {
		struct cmsghdr first;
		char room[CMSG_SPACE(4) + CMSG_SPACE(sizeof(struct af_alg_iv) + 16)];
	} control = { 0 };
	struct msghdr message = { .msg_control = &control, .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	struct af_alg_iv *iv;

	header->cmsg_level = SOL_ALG;
	header->cmsg_type = ALG_SET_OP;
	header->cmsg_len = CMSG_LEN(4);
	*(unsigned int *)CMSG_DATA(header) = ALG_OP_ENCRYPT;
	header = CMSG_NXTHDR(&message, header);
	header->cmsg_level = SOL_ALG;
	header->cmsg_type = ALG_SET_IV;
	header->cmsg_len = CMSG_LEN(sizeof(*iv) + 16);
	iv = (void *)CMSG_DATA(header);
	iv->ivlen = from_hex(iv->iv, 16, hex);
	return sendmsg(fd, &message, MSG_MORE) < 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_alg algorithm = { .salg_family = AF_ALG };
	unsigned char data[4096], key[64];
	ssize_t length;
	int fd, work;

	if (argc != 3 && argc != 5)
		return 2;
	strncpy((char *)algorithm.salg_type, argv[1], sizeof(algorithm.salg_type) - 1);
	strncpy((char *)algorithm.salg_name, argv[2], sizeof(algorithm.salg_name) - 1);
	fd = socket(AF_ALG, SOCK_SEQPACKET, 0);
	if (fd < 0 || bind(fd, (void *)&algorithm, sizeof(algorithm)))
		return fail(argv[2]);
	if (argc == 5 && setsockopt(fd, SOL_ALG, ALG_SET_KEY, key, from_hex(key, sizeof(key), argv[3])))
		return fail("the key");
	work = accept(fd, NULL, NULL);
	if (work < 0 || (argc == 5 && announce(work, argv[4])))
		return fail("a request");
	length = read(0, data, sizeof(data));
	if (length < 0 || send(work, data, length, 0) != length)
		return fail("the data");
	length = read(work, data, argc == 5 ? length : 32);
	if (length < 0)
		return fail("the result");
	for (ssize_t n = 0; n < length; n++)
		printf("%02x", data[n]);
	puts("");
	return 0;
}
