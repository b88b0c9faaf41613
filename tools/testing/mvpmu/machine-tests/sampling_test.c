// SPDX-License-Identifier: GPL-2.0
/*
 * Every overflow gives one interrupt, before what follows.
 *
 * The comment above a test names a change to the machine that makes it fail.
 */
#define _GNU_SOURCE
#include <err.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tap.h"
#include "vendor.h"

#define RING_PAGES	256
#define ITERATIONS	5000000UL
/* One iteration, one block. */
#define LOOP_INSTRUCTIONS	8

extern char loop_head[], loop_end[];

static __attribute__((noinline)) void loop(uint64_t iterations)
{
	asm volatile(".globl loop_head; loop_head: dec %0; .rept 6; nop; .endr; jnz loop_head;"
		     ".globl loop_end; loop_end:"
		     : "+r"(iterations) : : "cc");
}

/* The interrupts that the kernel has counted on CPU 0 in this line of /proc/interrupts. */
static uint64_t interrupts(const char *which)
{
	FILE *file = fopen("/proc/interrupts", "r");
	char line[512];
	size_t length = strlen(which);
	uint64_t count = 0;
	const char *name;

	if (!file)
		err(1, "/proc/interrupts");
	while (fgets(line, sizeof(line), file)) {
		name = line + strspn(line, " ");
		if (!strncmp(name, which, length) && sscanf(name + length, ": %lu", &count) == 1)
			break;
	}
	fclose(file);
	return count;
}

/* Whether a PMI may come before the instruction at this address. */
static bool is_expected(const char *ip)
{
	if (this_vendor()->pmi_waits_for_block)
		return ip == loop_head;
	return ip >= loop_head && ip < loop_end;
}

struct sampled {
	uint64_t count;
	uint64_t interrupts;
	uint64_t samples;
	/* Of these, where they may be, and in the kernel. */
	uint64_t there, kernel;
	/* Meanwhile. */
	uint64_t ticks;
};

/*
 * The samples in the ring. One in the kernel has the address 0 since Linux 7.3
 * (perf_instruction_pointer()), the kernel's before.
 */
static void samples(struct perf_event_mmap_page *ring, struct sampled *sampled)
{
	char *data = (char *)ring + getpagesize();

	for (uint64_t tail = 0; tail < ring->data_head; ) {
		struct perf_event_header *record = (void *)(data + tail);

		if (record->type == PERF_RECORD_SAMPLE) {
			const char *ip = *(char **)(record + 1);

			sampled->samples++;
			sampled->there += is_expected(ip);
			sampled->kernel += (intptr_t)ip <= 0;
		} else {
			warnx("a record of type %u", record->type);
		}
		tail += record->size;
	}
}

/* Samples the loop; what is counted beside it is always the same. */
static struct sampled sample(uint64_t period, uint64_t iterations)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_RAW,
		.size = sizeof(attr),
		.config = this_vendor()->instructions,
		.sample_period = period,
		.sample_type = PERF_SAMPLE_IP,
		.exclude_kernel = 1,
		.disabled = 1,
	};
	struct perf_event_mmap_page *ring;
	struct sampled sampled = {};
	uint64_t pmis, ticks;
	int fd;

	fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	if (fd < 0)
		err(1, "perf_event_open");
	ring = mmap(NULL, (RING_PAGES + 1) * getpagesize(), PROT_READ | PROT_WRITE, MAP_SHARED,
		    fd, 0);
	if (ring == MAP_FAILED)
		err(1, "mmap of the samples");
	pmis = interrupts("PMI");
	ticks = interrupts("LOC");
	ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
	loop(iterations);
	ioctl(fd, PERF_EVENT_IOC_DISABLE, 0);
	sampled.ticks = interrupts("LOC") - ticks;
	sampled.interrupts = interrupts("PMI") - pmis;
	if (read(fd, &sampled.count, sizeof(sampled.count)) != sizeof(sampled.count))
		err(1, "read");
	samples(ring, &sampled);
	munmap(ring, (RING_PAGES + 1) * getpagesize());
	close(fd);
	return sampled;
}

static void sample_every(uint64_t period, uint64_t base)
{
	struct sampled sampled = sample(period, ITERATIONS);
	uint64_t in_kernel;
	char name[64];

	snprintf(name, sizeof(name), "period %lu: the loop is counted", period);
	tap_equal(sampled.count, base + (ITERATIONS - 1) * LOOP_INSTRUCTIONS, name);
	snprintf(name, sizeof(name), "period %lu: a sample for each overflow", period);
	tap_equal(sampled.samples, (base + (ITERATIONS - 1) * LOOP_INSTRUCTIONS) / period, name);
	snprintf(name, sizeof(name), "period %lu: and one interrupt", period);
	tap_equal(sampled.interrupts, sampled.samples, name);
	/*
	 * Where a PMI waits for the next block, that is one of the kernel's when the tick comes in
	 * between: as rarely as once in some hundreds of runs.
	 */
	in_kernel = this_vendor()->pmi_waits_for_block ? sampled.kernel : 0;
	snprintf(name, sizeof(name), "period %lu: all in the loop, where they may be", period);
	tap_equal(sampled.there + in_kernel, sampled.samples, name);
	snprintf(name, sizeof(name), "period %lu: no more in the kernel than there were ticks", period);
	tap_result(in_kernel <= sampled.ticks, name);
}

/*
 * Break: on_alarm() lets the block run first; no event counts anything.
 */
int main(void)
{
	cpu_set_t set;
	uint64_t base;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	sched_setaffinity(0, sizeof(set), &set);

	printf("TAP version 13\n");
	/* The loop once: what is counted beside it. */
	base = sample(ITERATIONS, 1).count;
	sample_every(100003, base);
	sample_every(30001, base);
	sample_every(1000000, base);
	return tap_done();
}
