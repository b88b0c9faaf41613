// SPDX-License-Identifier: GPL-2.0
/*
 * Host and guest count at the same time with the same hardware: neither sees
 * anything of the other.
 *
 * The host's events are exclude_guest and count user mode only: how often the
 * kernel is interrupted is nobody's to say.
 */
#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"
#include "machine.h"
#include "payload.h"

#define MAX_EVENTS	16

static const struct payload loop = PAYLOAD_LOOP;
static const struct payload cpuid_exits = PAYLOAD_CPUID;

static u64 guest_loops;

/* All counters are in use, the CPUID exits make the kernel switch often. */
static void guest_count(void)
{
	u64 enable;

	for (;;) {
		pmu_reset();
		enable = pmc_program_all(INSTRUCTIONS, NULL);
		cpuid_exits.measure(enable, 10);
		loop.measure(enable, guest_loops);
		pmc_check_all(enable, NULL,
			      payload_count(&cpuid_exits, INSTRUCTIONS, 10) +
			      payload_count(&loop, INSTRUCTIONS, guest_loops));
		GUEST_SYNC(0);
	}
}

/*
 * Nothing counts.  With @enabled a counter waits for CPL 3, which never comes, so
 * that what is read is in hardware.
 */
static void guest_read_all(bool enabled)
{
	unsigned int pmc;

	if (enabled)
		pmc_program(0, INSTRUCTIONS, PMC_USR | PMC_ENABLE, 0);
	for (;;) {
		for (pmc = 0; pmc < nr_counters(); pmc++) {
			GUEST_ASSERT_EQ(pmc_read(pmc), 0);
			GUEST_ASSERT_EQ(rdmsr(counter_msr(pmc)), 0);
		}
		GUEST_ASSERT_EQ(rdmsr(vendor->global_status), 0);
		GUEST_SYNC(0);
	}
}

/* Leaves its marks in all counters and goes on counting. */
static void guest_leave_marks(void)
{
	unsigned int pmc;
	u64 enable = 0;

	pmu_reset();
	for (pmc = 0; pmc < nr_counters(); pmc++) {
		pmc_program(pmc, INSTRUCTIONS, PMC_COUNT, 0x5ec4e7000 + pmc);
		enable |= counter_bit(pmc);
	}
	for (;;) {
		wrmsr(vendor->global_control, enable);
		GUEST_SYNC(0);
	}
}

struct host_events {
	int fds[MAX_EVENTS];
	unsigned int nr;
};

FIXTURE(host_perf) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	struct host_events events;
};

FIXTURE_SETUP(host_perf)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create(&self->vcpu, guest_count);
}

FIXTURE_TEARDOWN(host_perf)
{
	unsigned int i;

	for (i = 0; i < self->events.nr; i++)
		close(self->events.fds[i]);
	kvm_vm_free(self->vm);
}

static void open_events(struct host_events *events, unsigned int nr, bool kernel)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.size = sizeof(attr),
		.disabled = 1,
		.pinned = 1,
		.exclude_guest = 1,
		.exclude_kernel = !kernel,
		.exclude_hv = 1,
	};
	int fd;

	TEST_ASSERT(nr <= MAX_EVENTS, "%u counters are more than expected", nr);
	for (; events->nr < nr; events->nr++) {
		fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
		TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("perf_event_open", fd));
		events->fds[events->nr] = fd;
	}
}

static void control_events(const struct host_events *events, unsigned long request)
{
	unsigned int i;

	for (i = 0; i < events->nr; i++)
		ioctl(events->fds[i], request, 0);
}

/* A host loop of 2 * @n + 1 instructions. */
static void host_loop(u64 n)
{
	asm volatile("mov %[n], %%rcx\n"
		     "1: dec %%rcx\n\t"
		     "jnz 1b" :: [n]"r"(n) : "rcx", "cc");
}

/*
 * Lets the host run @host_loops and the guest @loops; returns what the host's
 * first event has counted.  The path is the same whatever the arguments are.
 */
static u64 count_in_host(const struct host_events *events, struct kvm_vcpu *vcpu,
			 u64 host_loops, u64 loops)
{
	struct ucall uc;
	u64 count;

	guest_loops = loops;
	sync_global_to_guest(vcpu->vm, guest_loops);

	control_events(events, PERF_EVENT_IOC_RESET);
	control_events(events, PERF_EVENT_IOC_ENABLE);
	vcpu_run(vcpu);
	host_loop(host_loops);
	control_events(events, PERF_EVENT_IOC_DISABLE);

	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(uc.cmd, UCALL_SYNC);

	/* A pinned event that lost its counter reads as end of file. */
	TEST_ASSERT_EQ(read(events->fds[0], &count, sizeof(count)), sizeof(count));
	return count;
}

static void check_host_counts(const struct host_events *events, struct kvm_vcpu *vcpu)
{
	u64 base;

	/* The first time binds symbols. */
	count_in_host(events, vcpu, 1, 1);
	base = count_in_host(events, vcpu, 1, 1);

	TEST_ASSERT_EQ(count_in_host(events, vcpu, 1, 1), base);
	TEST_ASSERT_EQ(count_in_host(events, vcpu, 1, 1000001), base);
	TEST_ASSERT_EQ(count_in_host(events, vcpu, 1000001, 1), base + 2 * 1000000);
	TEST_ASSERT_EQ(count_in_host(events, vcpu, 1000001, 1000001), base + 2 * 1000000);
}

/*
 * The guest checks its counts too.  Seen to fail when perf is not told to stop
 * its events before the guest runs, and when it is not told to go on.
 */
TEST_F(host_perf, event_counts_the_host_and_not_the_guest)
{
	open_events(&self->events, 1, false);
	check_host_counts(&self->events, self->vcpu);
}

/* Seen to fail with the same breaks. */
TEST_F(host_perf, host_and_guest_both_use_all_counters)
{
	open_events(&self->events, shape.nr_gp, false);
	check_host_counts(&self->events, self->vcpu);
}

static void guest_exit_often(void)
{
	u64 i;

	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(0));
	for (;;) {
		GUEST_SYNC(0);
		for (i = 0; i < guest_loops; i++)
			rdmsr(selector_msr(0));
	}
}

/* As test machines count them, on this CPU. */
static u64 host_instructions(void)
{
	return machine_count(MACHINE_KERNEL_INSTRUCTIONS) +
	       machine_count(MACHINE_USER_INSTRUCTIONS);
}

/*
 * What the host's kernel executes to handle a VM exit is the host's, also if it
 * does not return to userspace.  Seen to fail when the guest's state stays in
 * hardware though an event of the host waits.
 */
TEST_F(host_perf, event_counts_the_handling_of_exits)
{
	const u64 nr_exits = 1000;
	u64 few, many, before, after;

	pin_self_to_cpu(0);
	open_events(&self->events, 1, true);
	vcpu_arch_set_entry_point(self->vcpu, guest_exit_often);

	count_in_host(&self->events, self->vcpu, 1, 1);
	few = count_in_host(&self->events, self->vcpu, 1, 1);
	before = host_instructions();
	many = count_in_host(&self->events, self->vcpu, 1, 1 + nr_exits);
	after = host_instructions();

	/* KVM takes hundreds of instructions to emulate an RDMSR. */
	EXPECT_LT(few + 200 * nr_exits, many);
	/* And no more than that: how much exactly, host_exact_test says. */
	if (machine_read(MACHINE_USER_INSTRUCTIONS, &few))
		EXPECT_GT(after - before, many);
}

#define NR_READS	10

static void read_beside_events(const struct host_events *events, struct kvm_vcpu *vcpu,
			       bool enabled)
{
	unsigned int i;

	vcpu_arch_set_entry_point(vcpu, guest_read_all);
	vcpu_args_set(vcpu, 1, enabled);
	control_events(events, PERF_EVENT_IOC_ENABLE);

	for (i = 0; i < NR_READS; i++) {
		host_loop(1000 + i);
		TEST_ASSERT(run_guest(vcpu, NULL), "The guest never ends");
	}
}

TEST_F(host_perf, guest_without_counters_reads_nothing_of_host_events)
{
	open_events(&self->events, shape.nr_gp, false);
	read_beside_events(&self->events, self->vcpu, false);
}

/* Seen to fail when a load writes only counters that are not 0. */
TEST_F(host_perf, guest_reads_nothing_of_host_events)
{
	open_events(&self->events, shape.nr_gp, false);
	read_beside_events(&self->events, self->vcpu, true);
	EXPECT_LE(NR_READS, pmu_loads(self->vcpu));
}

/*
 * A task with CR4.PCE reads every counter.  Seen to fail when a put does not
 * clear the counters.
 */
TEST_F(host_perf, host_task_reads_nothing_of_the_guest_by_rdpmc)
{
	struct perf_event_mmap_page *page;
	unsigned int pmc, i;

	open_events(&self->events, 1, false);
	page = mmap(NULL, getpagesize(), PROT_READ, MAP_SHARED, self->events.fds[0], 0);
	ASSERT_NE(MAP_FAILED, page);
	if (!page->cap_user_rdpmc)
		SKIP(return, "perf does not allow RDPMC");
	control_events(&self->events, PERF_EVENT_IOC_ENABLE);

	vcpu_arch_set_entry_point(self->vcpu, guest_leave_marks);
	for (i = 0; i < 10; i++) {
		EXPECT_TRUE(run_guest(self->vcpu, NULL));
		for (pmc = 0; pmc < nr_counters(); pmc++)
			if (rdpmc_index(pmc) + 1 != page->index)
				EXPECT_EQ(0, pmc_read(pmc));
	}
	munmap(page, getpagesize());
}

TEST_HARNESS_MAIN
