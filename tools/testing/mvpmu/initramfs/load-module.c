// SPDX-License-Identifier: GPL-2.0
/*
 * load-module FILE [PARAMETER=VALUE...]: insmod, with one system call. Busybox's tries a second way
 * when the first fails, so that what the kernel says is in the log twice.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char parameters[4096] = "";
	int fd;

	if (argc < 2) {
		fprintf(stderr, "usage: load-module FILE [PARAMETER=VALUE...]\n");
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		size_t length = strlen(parameters);

		if (length + strlen(argv[i]) + 2 > sizeof(parameters)) {
			fprintf(stderr, "load-module: the parameters are too long\n");
			return 2;
		}
		sprintf(parameters + length, "%s ", argv[i]);
	}
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || syscall(SYS_finit_module, fd, parameters, 0)) {
		fprintf(stderr, "load-module: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	return 0;
}
