/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Samples of the host with branch stacks, and what they have of a guest.
 */
#ifndef SELFTEST_MVPMU_HOST_BRANCHES_H
#define SELFTEST_MVPMU_HOST_BRANCHES_H

#include <asm/barrier.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvm_util.h"

#define RING_PAGES	1024

/* An event that samples instructions of this thread in the kernel. */
struct branch_event {
	struct perf_event_mmap_page *page;
	int fd;
};

#define RING_SIZE	((1 + RING_PAGES) * (size_t)getpagesize())

/* False: the CPU has no branch stack.  The event is disabled. */
static inline bool open_branch_event(struct branch_event *event, u64 period, bool exclude_guest)
{
	/*
	 * Indirect calls: the host executes few between #VMEXIT and the NMI of perf,
	 * so that what is recorded of the guest stays to be seen.
	 */
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.size = sizeof(attr),
		.sample_period = period,
		.sample_type = PERF_SAMPLE_BRANCH_STACK,
		.branch_sample_type = PERF_SAMPLE_BRANCH_USER |
				      PERF_SAMPLE_BRANCH_KERNEL |
				      PERF_SAMPLE_BRANCH_IND_CALL,
		.exclude_user = 1,
		.exclude_guest = exclude_guest,
		.disabled = 1,
	};

	event->fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	if (event->fd < 0 && errno == EOPNOTSUPP)
		return false;
	TEST_ASSERT(event->fd >= 0, __KVM_SYSCALL_ERROR("perf_event_open", event->fd));
	event->page = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, event->fd, 0);
	TEST_ASSERT(event->page != MAP_FAILED, "mmap() of an event failed");
	return true;
}

static inline void close_branch_event(struct branch_event *event)
{
	munmap(event->page, RING_SIZE);
	close(event->fd);
}

static inline void enable_branch_event(struct branch_event *event)
{
	int error = ioctl(event->fd, PERF_EVENT_IOC_ENABLE, 0);

	TEST_ASSERT(!error, KVM_IOCTL_ERROR(PERF_EVENT_IOC_ENABLE, error));
}

static inline void disable_branch_event(struct branch_event *event)
{
	int error = ioctl(event->fd, PERF_EVENT_IOC_DISABLE, 0);

	TEST_ASSERT(!error, KVM_IOCTL_ERROR(PERF_EVENT_IOC_DISABLE, error));
}

/* What the samples of an event have. */
struct seen {
	unsigned int samples;
	unsigned int host;	/* branches of the host */
	unsigned int guest;	/* and of the guest */
};

struct sample {
	struct perf_event_header header;
	u64 nr;
	struct perf_branch_entry entries[];
};

/* The address of the guest's branch is one that the host never executes. */
static inline struct seen look_at(const struct branch_event *event, u64 branch_of_guest)
{
	const struct perf_event_mmap_page *page = event->page;
	const char *data = (const char *)page + page->data_offset;
	struct seen seen = {};
	u64 head, at, i;

	/* The samples before it are there. */
	head = smp_load_acquire(&page->data_head);
	/* It has not gone round. */
	TEST_ASSERT(head < page->data_size, "%lu bytes of samples", head);
	for (at = 0; at < head;) {
		const struct sample *sample = (const void *)(data + at);

		at += sample->header.size;
		if (sample->header.type != PERF_RECORD_SAMPLE)
			continue;
		seen.samples++;
		for (i = 0; i < sample->nr; i++) {
			if (sample->entries[i].from == branch_of_guest)
				seen.guest++;
			else
				seen.host++;
		}
	}
	ksft_print_msg("%u samples with %u branches of the host and %u of the guest\n",
		       seen.samples, seen.host, seen.guest);
	return seen;
}

#endif /* SELFTEST_MVPMU_HOST_BRANCHES_H */
