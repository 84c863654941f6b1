/*
 * What the network stack answers.
 *   net stream PROTOCOL            the protocol of a stream socket that was asked for PROTOCOL, or the error
 *   net mtu FROM TO                how long a packet may be on the path
 *   net too-big FROM TO MTU        a router on the path says that packets may be MTU long
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what)
{
	fprintf(stderr, "net: %s: %s\n", what, strerror(errno));
	return 1;
}

static int stream(int protocol)
{
	int fd = socket(AF_INET, SOCK_STREAM, protocol);
	int is;
	socklen_t length = sizeof(is);

	if (fd < 0) {
		puts(strerrorname_np(errno));
		return 0;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &is, &length))
		return fail("SO_PROTOCOL");
	printf("%d\n", is);
	return 0;
}

static struct sockaddr_in address(const char *text, int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };

	inet_pton(AF_INET, text, &address.sin_addr);
	return address;
}

static int connected(struct sockaddr_in *from, struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0 || bind(fd, (void *)from, sizeof(*from)) || connect(fd, (void *)to, sizeof(*to)))
		exit(fail("a socket"));
	return fd;
}

static unsigned short checksum(const void *data, size_t length)
{
	const unsigned short *words = data;
	unsigned long sum = 0;

	for (; length > 1; length -= 2)
		sum += *words++;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The message goes to the sender itself; what was too big is a packet of the connected socket. */
static int too_big(struct sockaddr_in *from, struct sockaddr_in *to, int mtu)
{
	struct {
		struct icmphdr icmp;
		struct iphdr ip;
		struct udphdr udp;
	} message = {
		.icmp = { .type = ICMP_DEST_UNREACH, .code = ICMP_FRAG_NEEDED, .un.frag.mtu = htons(mtu) },
		.ip = { .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .frag_off = htons(IP_DF),
			.tot_len = htons(1500), .saddr = from->sin_addr.s_addr, .daddr = to->sin_addr.s_addr },
		.udp = { .source = from->sin_port, .dest = to->sin_port, .len = htons(1480) },
	};
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);

	message.icmp.checksum = checksum(&message, sizeof(message));
	if (fd < 0 || sendto(fd, &message, sizeof(message), 0, (void *)from, sizeof(*from)) < 0)
		return fail("the message");
	return 0;
}

static int print_mtu(int fd)
{
	int mtu;
	socklen_t length = sizeof(mtu);

	if (getsockopt(fd, IPPROTO_IP, IP_MTU, &mtu, &length))
		return fail("IP_MTU");
	printf("%d\n", mtu);
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in from, to;
	int fd;

	if (argc == 3 && !strcmp(argv[1], "stream"))
		return stream(atoi(argv[2]));
	if (argc < 4)
		return 2;
	from = address(argv[2], 4001);
	to = address(argv[3], 4002);
	fd = connected(&from, &to);
	return argc == 4 ? print_mtu(fd) : too_big(&from, &to, atoi(argv[4]));
}
