// SPDX-License-Identifier: GPL-2.0
/*
 * AMD: RDPMC with indices 6 to 15 reads counters of the data fabric and the L3,
 * which count what all CPUs do.  A guest reads nothing there: RDPMC is
 * intercepted as long as the host has an event that uses one, and all of them are
 * 0 while it is not.
 *
 * Seen to fail with a kernel that does neither: L2, the guest that runs while the
 * event is opened, and what the host reads when the event has ended.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"
#include "attack.h"
#include "nested.h"

#define FIRST_INDEX	6
#define LAST_INDEX	15
#define NR_INDICES	(LAST_INDEX - FIRST_INDEX + 1)

/* While the events count: each read is an exit and a #GP. */
#define ROUNDS		4000
#define ROUNDS_WITHOUT	1000
/* How often an event is opened under a guest that does not stop reading. */
#define OPENINGS	100

#define PMUS		"/sys/bus/event_source/devices/"

/* Guest */

static u64 rounds;
static struct attack attack;
static u64 faults;

static void read_all(void)
{
	u64 value;
	u32 index;

	for (index = FIRST_INDEX; index <= LAST_INDEX; index++) {
		attack.reads++;
		if (rdpmc_safe(index, &value) == GP_VECTOR)
			faults++;
		else if (value)
			attack_leak(&attack, index, value);
	}
}

/* A guest that counts: the others may execute no RDPMC anyway. */
static void begin_to_count(void)
{
	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(0));
}

static void guest_spy(void)
{
	u64 round;

	begin_to_count();
	for (;;) {
		GUEST_SYNC(0);
		for (round = 0; round < rounds; round++)
			read_all();
	}
}

/* The spy is L2, which never exits to L1. */
static void guest_nesting(void)
{
	nested_svm_setup(svm, guest_spy, &l2_stack[L2_STACK]);
	asm volatile("vmrun %%rax" : : "a"(svm->vmcb_gpa) : "memory");
	GUEST_FAIL("L2 has exited");
}

/* Written by the host, and by the guest. */
static u64 opened;
static u64 rounds_done;
/* Reads that no exit has stopped, in all, and when the event had been opened. */
static u64 passed, late;

static void guest_that_never_stops(void)
{
	u64 was_open, before;

	begin_to_count();
	for (;;) {
		was_open = READ_ONCE(opened);
		before = attack.reads - faults;
		read_all();
		passed += attack.reads - faults - before;
		if (was_open && READ_ONCE(opened) == was_open)
			late += attack.reads - faults - before;
		WRITE_ONCE(rounds_done, rounds_done + 1);
	}
}

/* Host */

static u64 number_in(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY);

	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR(path, fd));
	TEST_ASSERT(read(fd, text, sizeof(text) - 1) > 0, "Cannot read %s", path);
	close(fd);
	return strtoul(text, NULL, 10);
}

static int open_uncore_event(const char *type, const char *cpumask)
{
	struct perf_event_attr attr = {
		.type = number_in(type),
		.config = 1,
		.size = sizeof(attr),
	};
	int fd = syscall(SYS_perf_event_open, &attr, -1, number_in(cpumask), -1, 0);

	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("perf_event_open", fd));
	return fd;
}

static int open_fabric_event(void)
{
	return open_uncore_event(PMUS "amd_df/type", PMUS "amd_df/cpumask");
}

static int open_l3_event(void)
{
	return open_uncore_event(PMUS "amd_l3/type", PMUS "amd_l3/cpumask");
}

static u64 count_of(int event)
{
	u64 count;

	TEST_ASSERT_EQ(read(event, &count, sizeof(count)), sizeof(count));
	return count;
}

static const char *uncore_missing(void)
{
	const char *missing = pmu_missing();

	if (!missing && host_cpu_is_intel)
		return "it is about AMD's registers";
	return missing;
}

FIXTURE(attack_uncore) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	int events[2];
};

FIXTURE_VARIANT(attack_uncore) {
	const char *name;
	bool event_first;
	bool nested;
};

FIXTURE_VARIANT_ADD(attack_uncore, vm_is_first) {
	.name = "guest-uncore/vm-first",
};

FIXTURE_VARIANT_ADD(attack_uncore, event_is_first) {
	.name = "guest-uncore/event-first",
	.event_first = true,
};

FIXTURE_VARIANT_ADD(attack_uncore, l2) {
	.name = "guest-uncore/l2",
	.nested = true,
};

FIXTURE_SETUP(attack_uncore)
{
	const char *missing = uncore_missing();

	if (missing)
		SKIP(return, "%s", missing);
	pin_self_to_cpu(0);
}

FIXTURE_TEARDOWN(attack_uncore)
{
	if (self->vm)
		kvm_vm_free(self->vm);
}

static void create_spy(struct kvm_vm **vm, struct kvm_vcpu **vcpu, bool nested)
{
	*vm = pmu_vm_create(vcpu, nested ? guest_nesting : guest_spy);
	if (nested)
		nested_alloc(*vm);
	TEST_ASSERT(run_guest(*vcpu, NULL), "The guest never ends");
}

/* What the guest has read in @n rounds; returns its exits but the one at the end. */
static u64 spy(struct kvm_vcpu *vcpu, u64 n)
{
	u64 before, none = 0, exits;

	/* The first time touches its pages. */
	for (rounds = 1; ; rounds = n) {
		memset(&attack, 0, sizeof(attack));
		sync_global_to_guest(vcpu->vm, attack);
		write_guest_global(vcpu->vm, faults, none);
		sync_global_to_guest(vcpu->vm, rounds);

		before = guest_exits(vcpu);
		TEST_ASSERT(run_guest(vcpu, NULL), "The guest never ends");
		exits = guest_exits(vcpu) - before;
		if (rounds == n)
			break;
	}
	sync_global_from_guest(vcpu->vm, attack);
	sync_global_from_guest(vcpu->vm, faults);
	return exits - 1;
}

static void open_events(int *events)
{
	events[0] = open_fabric_event();
	events[1] = open_l3_event();
}

static void close_events(int *events)
{
	close(events[0]);
	close(events[1]);
}

TEST_F(attack_uncore, guest_reads_nothing_and_exits_only_while_an_event_exists)
{
	if (variant->event_first)
		open_events(self->events);
	create_spy(&self->vm, &self->vcpu, variant->nested);
	if (!variant->event_first) {
		EXPECT_EQ(0, spy(self->vcpu, ROUNDS_WITHOUT));
		EXPECT_EQ(0, attack.leaks);
		EXPECT_EQ(0, faults);
		open_events(self->events);
	}

	EXPECT_LE(ROUNDS * NR_INDICES, spy(self->vcpu, ROUNDS));
	report_attack(variant->name, &attack);
	EXPECT_EQ(ROUNDS * NR_INDICES, attack.reads);
	EXPECT_EQ(ROUNDS * NR_INDICES, faults);
	EXPECT_EQ(0, attack.leaks);
	/* There was something to be read. */
	EXPECT_NE(0, count_of(self->events[0]));
	EXPECT_NE(0, count_of(self->events[1]));

	close_events(self->events);
	EXPECT_EQ(0, spy(self->vcpu, ROUNDS_WITHOUT));
	report_attack(variant->name, &attack);
	EXPECT_EQ(0, attack.leaks);
	EXPECT_EQ(0, faults);
}

FIXTURE(attack_uncore_once) {
	int event;
};

FIXTURE_SETUP(attack_uncore_once)
{
	const char *missing = uncore_missing();

	if (missing)
		SKIP(return, "%s", missing);
	pin_self_to_cpu(0);
}

FIXTURE_TEARDOWN(attack_uncore_once)
{
}

static void *run_for_ever(void *vcpu)
{
	__vcpu_run(vcpu);
	return NULL;
}

static void no_action(int signal)
{
}

/* It is in the guest, on another CPU, and no exit of its own brings it out. */
TEST_F(attack_uncore_once, guest_is_out_before_the_event_can_count)
{
	struct sigaction action = { .sa_handler = no_action };
	u64 *is_open, *done, before;
	struct kvm_vcpu *vcpu;
	unsigned int opening;
	struct kvm_vm *vm;
	pthread_t thread;

	vm = pmu_vm_create(&vcpu, guest_that_never_stops);
	is_open = addr_gva2hva(vm, (gva_t)&opened);
	done = addr_gva2hva(vm, (gva_t)&rounds_done);
	sigaction(SIGUSR1, &action, NULL);
	TEST_ASSERT_EQ(pthread_create(&thread, NULL, run_for_ever, vcpu), 0);
	pin_task_to_cpu(thread, 1);

	for (opening = 1; opening <= OPENINGS; opening++) {
		before = READ_ONCE(*done);
		while (READ_ONCE(*done) < before + 3)
			;
		self->event = open_fabric_event();
		WRITE_ONCE(*is_open, opening);
		before = READ_ONCE(*done);
		while (READ_ONCE(*done) < before + 3)
			;
		EXPECT_NE(0, count_of(self->event));
		WRITE_ONCE(*is_open, 0);
		close(self->event);
	}

	vcpu->run->immediate_exit = 1;
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	sync_global_from_guest(vm, attack);
	sync_global_from_guest(vm, faults);
	sync_global_from_guest(vm, passed);
	sync_global_from_guest(vm, late);
	attack.switches = OPENINGS;
	report_attack("guest-uncore/opened-meanwhile", &attack);
	EXPECT_EQ(0, attack.leaks);
	EXPECT_EQ(0, late);
	/* It has read both with and without exits. */
	EXPECT_LE(OPENINGS * NR_INDICES, faults);
	EXPECT_LE(OPENINGS * NR_INDICES, passed);
	kvm_vm_free(vm);
}

/* The attacker above would notice: this is what the counters hold. */
TEST_F(attack_uncore_once, host_reads_what_the_event_counts_and_nothing_afterwards)
{
	struct attack control = {};
	u64 value;

	if (!grant_rdpmc(EVERY_PROCESS))
		SKIP(return, "perf has no such right");
	self->event = open_fabric_event();
	value = rdpmc(FIRST_INDEX);
	EXPECT_NE(0, value);
	EXPECT_LT(value, rdpmc(FIRST_INDEX));
	EXPECT_LT(value, count_of(self->event));
	close(self->event);
	for (value = FIRST_INDEX; value <= LAST_INDEX; value++)
		if (rdpmc(value))
			attack_leak(&control, value, rdpmc(value));
	EXPECT_EQ(0, control.leaks);
	drop_rdpmc(EVERY_PROCESS);
}

/* The counter is cleared when the event leaves it. */
TEST_F(attack_uncore_once, event_goes_on_where_it_was)
{
	u64 first, second;

	self->event = open_fabric_event();
	ioctl(self->event, PERF_EVENT_IOC_DISABLE, 0);
	first = count_of(self->event);
	EXPECT_NE(0, first);
	EXPECT_EQ(first, count_of(self->event));
	ioctl(self->event, PERF_EVENT_IOC_ENABLE, 0);
	second = count_of(self->event);
	EXPECT_LT(first, second);
	EXPECT_GT(1ull << 40, second);
	close(self->event);
}

TEST_HARNESS_MAIN
