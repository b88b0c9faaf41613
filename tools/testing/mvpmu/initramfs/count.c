// SPDX-License-Identifier: GPL-2.0
/*
 * Counts, through perf_event_open(), the instructions and branches of a loop
 * of known length in user mode. Run in L1 or, as init, in a Linux guest; that ends
 * then, with the argument "wait" when it has got a line.
 */
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ITERATIONS	1000000UL

/*
 * Reads the counter three times, with the loop (1 + 2 * ITERATIONS
 * instructions, ITERATIONS branches) between the second and the third. The
 * code around each read is the same, so the difference of the two differences
 * is the loop alone.
 */
#define READ_COUNTER(index)			\
	"mov %[fd], %%edi\n\t"			\
	"lea " #index "*8(%[values]), %%rsi\n\t"	\
	"mov $8, %%edx\n\t"			\
	"xor %%eax, %%eax\n\t"			\
	"syscall\n\t"				\
	"add %%eax, %[bytes]\n\t"

static int count_loop(int fd, uint64_t *counted)
{
	uint64_t values[3];
	uint32_t bytes = 0;

	_Static_assert(SYS_read == 0, "the xor above");
	asm volatile(READ_COUNTER(0)
		     READ_COUNTER(1)
		     "mov %[iterations], %%rcx\n"
		     "1: dec %%rcx\n\t"
		     "jnz 1b\n\t"
		     READ_COUNTER(2)
		     : [bytes] "+r" (bytes)
		     : [fd] "r" (fd), [values] "r" (values), [iterations] "r" (ITERATIONS)
		     : "rax", "rcx", "rdx", "rdi", "rsi", "r11", "cc", "memory");
	*counted = (values[2] - values[1]) - (values[1] - values[0]);
	return bytes == sizeof(values) ? 0 : -1;
}

static int count(const char *name, uint64_t event, uint64_t expected)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(attr),
		.config = event,
		.pinned = 1,
		.exclude_kernel = 1,
	};
	uint64_t counted;
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);

	if (fd < 0) {
		perror("count: perf_event_open");
		return 1;
	}
	if (count_loop(fd, &counted)) {
		fprintf(stderr, "count: the counter cannot be read\n");
		return 1;
	}
	close(fd);
	printf("count: %s expected %lu counted %lu\n", name, expected, counted);
	return expected != counted;
}

int main(int argc, char **argv)
{
	int failed = 0;
	char byte;

	failed |= count("instructions", PERF_COUNT_HW_INSTRUCTIONS, 1 + 2 * ITERATIONS);
	failed |= count("branches", PERF_COUNT_HW_BRANCH_INSTRUCTIONS, ITERATIONS);
	fflush(stdout);
	if (getpid() != 1)
		return failed;
	if (argc > 1 && !strcmp(argv[1], "wait")) {
		printf("count: end\n");
		fflush(stdout);
		if (read(STDIN_FILENO, &byte, 1) < 0)
			perror("count: read");
	}
	reboot(RB_AUTOBOOT);
	return 1;
}
