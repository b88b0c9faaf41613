// SPDX-License-Identifier: GPL-2.0
/*
 * Branch stacks of the host beside a guest: samples of an event that excludes
 * guests have no branch of a guest, those of one that does not have some.
 *
 * Seen to fail without "perf/x86/amd: Do not record branches of guests for events
 * that exclude them".
 */
#include <asm/barrier.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"

#define NR_EXITS	10000
#define NR_CALLS	100	/* between two exits, more than are recorded */
#define PERIOD		10007	/* instructions of the kernel per sample */
#define RING_PAGES	1024

/*
 * Indirect calls: the host executes few between #VMEXIT and the NMI of perf,
 * so that what is recorded of the guest stays to be seen.
 */
static void guest_loop(void)
{
	u32 eax, ebx, ecx, edx, i;

	for (i = 0; i < NR_EXITS; i++) {
		ecx = NR_CALLS;
		asm volatile("	lea 2f(%%rip), %%rax\n"
			     "	.globl guest_branch\n"
			     "1:\n"
			     "guest_branch: call *%%rax\n"
			     "	dec %0\n"
			     "	jnz 1b\n"
			     "	jmp 3f\n"
			     "2:	ret\n"
			     "3:"
			     : "+c"(ecx) : : "rax", "cc", "memory");
		cpuid(0, &eax, &ebx, &ecx, &edx);
	}
	GUEST_DONE();
}

/* The address of the guest's call, which the host never executes. */
static u64 branch_of_guest(void)
{
	u64 address;

	asm("lea guest_branch(%%rip), %0" : "=r"(address));
	return address;
}

FIXTURE(host_branches)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(host_branches)
{
	self->vm = vm_create(1);
	vm_enable_cap(self->vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE);
	self->vcpu = vm_vcpu_add(self->vm, 0, guest_loop);
}

FIXTURE_TEARDOWN(host_branches)
{
	kvm_vm_free(self->vm);
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

static struct seen look_at(const struct perf_event_mmap_page *page)
{
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
			if (sample->entries[i].from == branch_of_guest())
				seen.guest++;
			else
				seen.host++;
		}
	}
	return seen;
}

/* Runs the guest; false: the CPU has no branch stack. */
static bool sample(struct kvm_vcpu *vcpu, bool exclude_guest, struct seen *seen)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.size = sizeof(attr),
		.sample_period = PERIOD,
		.sample_type = PERF_SAMPLE_BRANCH_STACK,
		.branch_sample_type = PERF_SAMPLE_BRANCH_USER |
				      PERF_SAMPLE_BRANCH_KERNEL |
				      PERF_SAMPLE_BRANCH_IND_CALL,
		.exclude_user = 1,
		.exclude_guest = exclude_guest,
		.disabled = 1,
	};
	size_t size = (1 + RING_PAGES) * getpagesize();
	struct perf_event_mmap_page *page;
	struct ucall uc;
	int fd, error;

	fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	if (fd < 0 && errno == EOPNOTSUPP)
		return false;
	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("perf_event_open", fd));
	page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	TEST_ASSERT(page != MAP_FAILED, "mmap() of an event failed");

	error = ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
	TEST_ASSERT(!error, KVM_IOCTL_ERROR(PERF_EVENT_IOC_ENABLE, error));
	vcpu_run(vcpu);
	error = ioctl(fd, PERF_EVENT_IOC_DISABLE, 0);
	TEST_ASSERT(!error, KVM_IOCTL_ERROR(PERF_EVENT_IOC_DISABLE, error));
	TEST_ASSERT(get_ucall(vcpu, &uc) == UCALL_DONE, "The guest has not come to its end");

	*seen = look_at(page);
	munmap(page, size);
	close(fd);
	ksft_print_msg("%u samples with %u branches of the host and %u of the guest\n",
		       seen->samples, seen->host, seen->guest);
	return true;
}

TEST_F(host_branches, excluding_events_have_none_of_the_guest)
{
	struct seen seen;

	if (!sample(self->vcpu, true, &seen))
		SKIP(return, "the CPU has no branch stack");
	EXPECT_LT(100, seen.samples);
	EXPECT_EQ(0, seen.guest);
}

TEST_F(host_branches, other_events_have_some_of_the_guest)
{
	struct seen seen;

	if (!sample(self->vcpu, false, &seen))
		SKIP(return, "the CPU has no branch stack");
	EXPECT_LT(100, seen.samples);
	EXPECT_LT(seen.samples / 2, seen.guest);
}

TEST_HARNESS_MAIN
