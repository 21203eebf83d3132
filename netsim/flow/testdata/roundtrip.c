// SPDX-License-Identifier: Apache-2.0
/* roundtrip COUNT: a client and a server exchange 96 bytes over one TCP connection of the loopback, COUNT times, with
 * nothing but read(2) and write(2), on one processor: where it costs least. It prints the processor time of both in
 * nanoseconds per round trip: the kernel's part, which any instrument has to pay. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static double nanoseconds(int who)
{
	struct rusage used;

	if (getrusage(who, &used))
		exit(1);
	return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e9 +
	       (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e3;
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(at);
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1, i, fd;
	int count = argc > 1 ? atoi(argv[1]) : 1;
	char frame[96] = {0};
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		return 1;
	if (bind(listener, (void *)&at, length) || getsockname(listener, (void *)&at, &length) || listen(listener, 1))
		return 1;
	if (!fork()) {
		fd = accept(listener, NULL, NULL);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		while (read(fd, frame, sizeof(frame)) == sizeof(frame))
			if (write(fd, frame, sizeof(frame)) != sizeof(frame))
				_exit(1);
		_exit(0);
	}
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fd, (void *)&at, length))
		return 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	for (i = 0; i < count; i++)
		if (write(fd, frame, sizeof(frame)) != sizeof(frame) || read(fd, frame, sizeof(frame)) != sizeof(frame))
			return 1;
	close(fd);
	wait(NULL);
	printf("%.0f\n", (nanoseconds(RUSAGE_SELF) + nanoseconds(RUSAGE_CHILDREN)) / count);
	return 0;
}
