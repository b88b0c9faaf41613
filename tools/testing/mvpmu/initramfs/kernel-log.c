// SPDX-License-Identifier: GPL-2.0
/*
 * kernel-log: the whole log of the kernel, a line for each record: "LEVEL TIME TEXT", the time in
 * microseconds. Unlike dmesg it also shows what `dmesg -c` has cleared, and says when there was
 * more than the kernel keeps.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "PRIORITY,SEQUENCE,TIME,FLAGS[,...];TEXT", then lines of " KEY=VALUE". */
static int show(char *record, unsigned long long *expected)
{
	unsigned long long sequence, time;
	unsigned int priority;
	char *text;

	text = strchr(record, ';');
	if (!text || sscanf(record, "%u,%llu,%llu,", &priority, &sequence, &time) != 3) {
		fprintf(stderr, "kernel-log: not a record: %s\n", record);
		return 1;
	}
	if (sequence != *expected)
		printf("0 %llu kernel-log: %llu records are lost\n", time, sequence - *expected);
	*expected = sequence + 1;
	text[strcspn(text, "\n")] = 0;
	/*
	 * The rest of the priority is the facility, 0 for the kernel: what programs write is not
	 * judged, it gets the level of KERN_DEBUG.
	 */
	printf("%u %llu %s\n", priority >> 3 ? 7 : priority & 7, time, text + 1);
	return 0;
}

int main(void)
{
	unsigned long long expected = 0;
	char record[8193];
	ssize_t length;
	int fd;

	fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	if (fd < 0) {
		perror("kernel-log: /dev/kmsg");
		return 1;
	}
	for (;;) {
		length = read(fd, record, sizeof(record) - 1);
		/* The next record was overwritten meanwhile; its successor is not. */
		if (length < 0 && errno == EPIPE)
			continue;
		if (length < 0 && errno == EAGAIN)
			return 0;
		if (length < 0) {
			perror("kernel-log: read");
			return 1;
		}
		record[length] = 0;
		if (show(record, &expected))
			return 1;
	}
}
