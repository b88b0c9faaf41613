// SPDX-License-Identifier: GPL-2.0
/*
 * The two ports of a test machine, from L1:
 *   port send	copies its input to the data port
 *   port end	ends the run
 */
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <unistd.h>

#define DATA_PORT	0xe9
#define END_PORT	0xf4

int main(int argc, char **argv)
{
	unsigned char buf[4096];
	ssize_t n;

	if (ioperm(DATA_PORT, 1, 1) || ioperm(END_PORT, 4, 1)) {
		perror("port: ioperm");
		return 1;
	}
	if (argc == 2 && !strcmp(argv[1], "send")) {
		while ((n = read(0, buf, sizeof(buf))) > 0)
			outsb(DATA_PORT, buf, n);
		if (n < 0)
			perror("port: read");
		return n < 0;
	}
	if (argc == 2 && !strcmp(argv[1], "end")) {
		outl(0, END_PORT);
		return 0;
	}
	fprintf(stderr, "usage: port send|end\n");
	return 2;
}
