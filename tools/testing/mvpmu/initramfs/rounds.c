// SPDX-License-Identifier: GPL-2.0
/*
 * rounds, the init of a guest that is moved meanwhile: counts and samples a loop of known length, again
 * and again, and says of each round whether it was exact. A byte on its console ends it.
 */
#include <linux/perf_event.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ITERATIONS	2000000UL
#define PERIOD		100003UL	/* branches */
#define PAGES		8

static int open_event(uint64_t event, uint64_t period, int group)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(attr),
		.config = event,
		.sample_period = period,
		.sample_type = PERF_SAMPLE_IP,
		.pinned = group < 0,
		.disabled = group < 0,
		.exclude_kernel = 1,
	};

	return syscall(SYS_perf_event_open, &attr, 0, -1, group, 0);
}

static unsigned int samples_in(const struct perf_event_mmap_page *page)
{
	const char *data = (const char *)page + page->data_offset;
	const struct perf_event_header *header;
	unsigned int samples = 0;
	uint64_t at;

	for (at = 0; at < page->data_head; at += header->size) {
		header = (const void *)(data + at);
		samples += header->type == PERF_RECORD_SAMPLE;
	}
	return samples;
}

static uint64_t read_count(int fd)
{
	uint64_t count = 0;

	if (read(fd, &count, sizeof(count)) != sizeof(count))
		perror("rounds: read");
	return count;
}

/* What system calls have in user mode is the same in each round: the second one says how much. */
struct round {
	uint64_t instructions, branches;
	unsigned int samples;
};

static int count(struct round *round)
{
	int fd = open_event(PERF_COUNT_HW_INSTRUCTIONS, 0, -1);
	int sampled = open_event(PERF_COUNT_HW_BRANCH_INSTRUCTIONS, PERIOD, fd);
	size_t size = (1 + PAGES) * getpagesize();
	uint64_t n = ITERATIONS;
	void *page;

	if (fd < 0 || sampled < 0) {
		perror("rounds: perf_event_open");
		return -1;
	}
	page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, sampled, 0);
	if (page == MAP_FAILED) {
		perror("rounds: mmap");
		return -1;
	}
	ioctl(fd, PERF_EVENT_IOC_ENABLE, PERF_IOC_FLAG_GROUP);
	asm volatile("1: dec %0\n\t"
		     "jnz 1b" : "+r"(n) : : "cc");
	ioctl(fd, PERF_EVENT_IOC_DISABLE, PERF_IOC_FLAG_GROUP);
	round->instructions = read_count(fd);
	round->branches = read_count(sampled);
	round->samples = samples_in(page);
	munmap(page, size);
	close(sampled);
	close(fd);
	return 0;
}

/* An interrupt takes long on a test machine: perf shall not stop events for a tick. */
static int never_throttle(void)
{
	FILE *limit;

	mkdir("/proc", 0755);
	if (mount("proc", "/proc", "proc", 0, NULL)) {
		perror("rounds: /proc");
		return -1;
	}
	limit = fopen("/proc/sys/kernel/perf_cpu_time_max_percent", "w");
	if (!limit || fputs("0", limit) < 0 || fclose(limit)) {
		perror("rounds: perf_cpu_time_max_percent");
		return -1;
	}
	return 0;
}

int main(void)
{
	struct pollfd console = { .fd = STDIN_FILENO, .events = POLLIN };
	unsigned int rounds, wrong = 0;
	struct round first, round;

	/* What the first one does once. */
	if (never_throttle() || count(&first) || count(&first))
		goto end;
	printf("rounds: %lu instructions, %lu branches, %u samples each\n", first.instructions,
	       first.branches, first.samples);
	for (rounds = 0; poll(&console, 1, 0) == 0; rounds++) {
		if (count(&round))
			break;
		if (!memcmp(&round, &first, sizeof(round))) {
			printf("rounds: %u\n", rounds);
		} else {
			wrong++;
			printf("rounds: %u wrong: %lu instructions, %lu branches, %u samples\n", rounds,
			       round.instructions, round.branches, round.samples);
		}
		fflush(stdout);
	}
	printf("rounds: end %u, %u wrong\n", rounds, wrong);
end:
	fflush(stdout);
	reboot(RB_AUTOBOOT);
	return 1;
}
