// SPDX-License-Identifier: GPL-2.0
/*
 * A process that may execute RDPMC reads nothing that events of others have
 * counted: perf clears what they leave behind, and by its record of that a guest is
 * lent a PMU in which the rest is zero.
 *
 * Seen to fail when a counter that an event is moved from, or the second one of a
 * pair, is not marked as dirty.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"
#include "attack.h"

#define NR_EVENTS	4
#define NR_CLOSED	2
/* Retired SSE and AVX operations: AMD CPUs count them with two counters. */
#define LARGE_INCREMENT	0xff03

/* An event that counts CPU 0. */
static int open_event(u32 type, u64 config)
{
	struct perf_event_attr attr = {
		.type = type,
		.config = config,
		.size = sizeof(attr),
		.pinned = 1,
		.exclude_guest = 1,
	};
	int fd = syscall(SYS_perf_event_open, &attr, -1, 0, -1, 0);

	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("perf_event_open", fd));
	return fd;
}

static u64 read_event(int fd)
{
	u64 count;

	TEST_ASSERT_EQ(read(fd, &count, sizeof(count)), sizeof(count));
	return count;
}

FIXTURE(host_rdpmc) {
	struct rdpmc_reader reader;
	struct attack attack;
};

FIXTURE_SETUP(host_rdpmc)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
	pin_self_to_cpu(0);
}

FIXTURE_TEARDOWN(host_rdpmc)
{
}

/* How many counters hold something, but that of the reader's own event. */
static unsigned int counters_left(struct rdpmc_reader *reader, struct attack *attack)
{
	unsigned int i, nr = 0;

	reader_open(reader, attack, OWN_EVENT);
	for (i = 0; i < reader->nr; i++) {
		if (i == reader->own || !reader->before[i])
			continue;
		fprintf(stderr, "# counter 0x%x holds 0x%lx\n", reader->index[i],
			reader->before[i]);
		nr++;
	}
	reader_close(reader);
	return nr;
}

/*
 * When an event is added, perf distributes all of them anew from the first counter on: the last
 * one of those that are left moves down, and nobody takes its counter.
 */
TEST_F(host_rdpmc, nothing_is_left_where_an_event_was_moved_from)
{
	int fds[NR_EVENTS], added;
	unsigned int i;

	for (i = 0; i < NR_EVENTS; i++)
		fds[i] = open_event(PERF_TYPE_HARDWARE, PERF_COUNT_HW_BRANCH_INSTRUCTIONS);
	for (i = 0; i < NR_CLOSED; i++)
		close(fds[i]);
	ASSERT_LT(0, read_event(fds[NR_EVENTS - 1]));
	added = open_event(PERF_TYPE_HARDWARE, PERF_COUNT_HW_BRANCH_INSTRUCTIONS);
	for (; i < NR_EVENTS; i++)
		close(fds[i]);
	close(added);
	EXPECT_EQ(0, counters_left(&self->reader, &self->attack));
}

/* What perf writes to the second counter is all ones as far as the hardware has them. */
TEST_F(host_rdpmc, amd_nothing_is_left_in_the_second_counter_of_a_pair)
{
	int fd;

	if (host_cpu_is_intel)
		SKIP(return, "Intel CPUs have no such events");
	fd = open_event(PERF_TYPE_RAW, LARGE_INCREMENT);
	read_event(fd);
	close(fd);
	EXPECT_EQ(0, counters_left(&self->reader, &self->attack));
}

TEST_HARNESS_MAIN
