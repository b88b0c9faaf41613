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

/* The number of performance monitoring interrupts the kernel has counted on CPU 0. */
static uint64_t interrupts(void)
{
	FILE *file = fopen("/proc/interrupts", "r");
	char line[512];
	uint64_t count = 0;

	if (!file)
		err(1, "/proc/interrupts");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, " PMI: %lu", &count) == 1)
			break;
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

/* The samples in the ring: how many, and how many of them where they may be. */
static void samples(struct perf_event_mmap_page *ring, uint64_t *all, uint64_t *there)
{
	char *data = (char *)ring + getpagesize();

	*all = *there = 0;
	for (uint64_t tail = 0; tail < ring->data_head; ) {
		struct perf_event_header *record = (void *)(data + tail);

		if (record->type == PERF_RECORD_SAMPLE) {
			++*all;
			*there += is_expected(*(char **)(record + 1));
		} else {
			warnx("a record of type %u", record->type);
		}
		tail += record->size;
	}
}

struct sampled {
	uint64_t count;
	uint64_t interrupts;
	uint64_t samples;
	/* Of these, where they may be. */
	uint64_t there;
};

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
	struct sampled sampled;
	uint64_t before;
	int fd;

	fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	if (fd < 0)
		err(1, "perf_event_open");
	ring = mmap(NULL, (RING_PAGES + 1) * getpagesize(), PROT_READ | PROT_WRITE, MAP_SHARED,
		    fd, 0);
	if (ring == MAP_FAILED)
		err(1, "mmap of the samples");
	before = interrupts();
	ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
	loop(iterations);
	ioctl(fd, PERF_EVENT_IOC_DISABLE, 0);
	sampled.interrupts = interrupts() - before;
	if (read(fd, &sampled.count, sizeof(sampled.count)) != sizeof(sampled.count))
		err(1, "read");
	samples(ring, &sampled.samples, &sampled.there);
	munmap(ring, (RING_PAGES + 1) * getpagesize());
	close(fd);
	return sampled;
}

static void sample_every(uint64_t period, uint64_t base)
{
	struct sampled sampled = sample(period, ITERATIONS);
	char name[64];

	snprintf(name, sizeof(name), "period %lu: the loop is counted", period);
	tap_equal(sampled.count, base + (ITERATIONS - 1) * LOOP_INSTRUCTIONS, name);
	snprintf(name, sizeof(name), "period %lu: a sample for each overflow", period);
	tap_equal(sampled.samples, (base + (ITERATIONS - 1) * LOOP_INSTRUCTIONS) / period, name);
	snprintf(name, sizeof(name), "period %lu: and one interrupt", period);
	tap_equal(sampled.interrupts, sampled.samples, name);
	snprintf(name, sizeof(name), "period %lu: all in the loop, where they may be", period);
	tap_equal(sampled.there, sampled.samples, name);
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
