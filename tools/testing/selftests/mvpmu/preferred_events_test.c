// SPDX-License-Identifier: GPL-2.0
/*
 * With mvpmu's host_events=prefer, an event of who may profile the host gets the
 * PMU also while a guest counts.  The guest's counters stand still then, keep
 * their values and PMIs, and go on afterwards.
 */
#include <pthread.h>
#include <sched.h>

#include "apic.h"
#include "host_events.h"
#include "harness.h"
#include "nested.h"
#include "payload.h"

#define ITERATIONS	1000

/* One of branches of this thread's guests. */
static int open_event_of_guests(void)
{
	struct perf_event_attr attr = {
		.config = PERF_COUNT_HW_BRANCH_INSTRUCTIONS,
		.exclude_host = 1,
	};
	int fd = open_of_thread(&attr, 0);

	TEST_ASSERT(fd >= 0, "No event of guests: %s", strerror(-fd));
	return fd;
}

static u64 read_event(int fd)
{
	u64 count;

	TEST_ASSERT(read(fd, &count, sizeof(count)) == sizeof(count), "Cannot read an event");
	return count;
}

static u64 expected(void)
{
	return 1 + 2 * ITERATIONS + MEASURE_INSTRUCTIONS;
}

static void guest_count(void)
{
	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	measure_loop(counter_bit(0), ITERATIONS);
	GUEST_ASSERT_EQ(expected(), pmc_read(0));
	GUEST_DONE();
}

static unsigned int nr_pmis;

static void guest_pmi(struct ex_regs *regs)
{
	nr_pmis++;
	wrmsr(vendor->global_status_clear, counter_bit(0));
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	x2apic_write_reg(APIC_EOI, 0);
}

/* Until a counter counts branches, of which KVM emulates none. */
static void guest_wait_for_pmu(void)
{
	pmc_program(1, BRANCHES, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(1));
	while (!pmc_read(1))
		;
	wrmsr(vendor->global_control, 0);
}

/* How often the loop is run, ITERATIONS times each, while the host has the PMU. */
static u64 loops;

/*
 * Takes its PMU away twice, while the guest is in userspace: with a counter that
 * stands still, and with one that has overflowed, whose PMI is pending.
 */
static void guest_give_way(void)
{
	x2apic_enable();
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	pmu_reset();
	pmc_program(0, BRANCHES, PMC_COUNT | PMC_PMI, 0);
	measure_loop(counter_bit(0), ITERATIONS);
	GUEST_ASSERT_EQ(ITERATIONS, pmc_read(0));
	GUEST_SYNC(0);

	measure_loop(counter_bit(0), loops * ITERATIONS);
	GUEST_ASSERT_EQ(ITERATIONS, pmc_read(0));
	GUEST_SYNC(1);

	guest_wait_for_pmu();
	measure_loop(counter_bit(0), ITERATIONS);
	GUEST_ASSERT_EQ(2 * ITERATIONS, pmc_read(0));

	wrmsr(counter_msr(0), overflow_in(ITERATIONS));
	measure_loop(counter_bit(0), ITERATIONS);
	GUEST_ASSERT_EQ(0, pmc_read(0));
	GUEST_SYNC(2);

	measure_loop(counter_bit(0), ITERATIONS);
	GUEST_ASSERT_EQ(0, pmc_read(0));
	GUEST_ASSERT_EQ(counter_bit(0), rdmsr(vendor->global_status) & counter_bit(0));
	GUEST_ASSERT_EQ(0, nr_pmis);
	asm volatile("sti; nop; cli");
	GUEST_ASSERT_EQ(1, nr_pmis);
	GUEST_SYNC(3);

	guest_wait_for_pmu();
	measure_loop(counter_bit(0), ITERATIONS);
	GUEST_ASSERT_EQ(ITERATIONS, pmc_read(0));
	asm volatile("sti; nop; cli");
	GUEST_ASSERT_EQ(1, nr_pmis);
	GUEST_DONE();
}

/* Runs the guest to its next phase. */
static void run_to(struct kvm_vcpu *vcpu, u64 phase)
{
	u64 arg;

	TEST_ASSERT(run_guest(vcpu, &arg), "The guest has ended before phase %lu", phase);
	TEST_ASSERT_EQ(arg, phase);
}

/* What an event of the host counts in the guest meanwhile, with @n for @loops. */
static u64 count_of_taken_pmu(u64 n)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	int event, other;
	u64 count;

	vm = pmu_vm_create(&vcpu, guest_give_way);
	vm_install_exception_handler(vm, PMI_VECTOR, guest_pmi);
	loops = n;
	sync_global_to_guest(vm, loops);
	run_to(vcpu, 0);

	/* An event that does not count in guests makes no difference. */
	other = open_host_event();
	event = open_event_of_guests();
	run_to(vcpu, 1);
	TEST_ASSERT(waits(), "The guest has to wait");
	count = read_event(event);
	close(event);
	close(other);

	run_to(vcpu, 2);
	TEST_ASSERT(!waits(), "The guest has to go on");

	event = open_event();
	TEST_ASSERT(event >= 0, "The event was refused: %s", strerror(-event));
	run_to(vcpu, 3);
	TEST_ASSERT(waits(), "The guest has to wait again");
	close(event);

	TEST_ASSERT(!run_guest(vcpu, NULL), "The guest has to end");
	TEST_ASSERT(!waits(), "The guest has to go on again");
	kvm_vm_free(vm);
	return count;
}

FIXTURE(preferred_events) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(preferred_events)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN(preferred_events)
{
	if (self->vm)
		kvm_vm_free(self->vm);
}

/* Has to fail when root's event is refused by "share", or is not by nobody's. */
TEST_F(preferred_events, of_an_administrator_are_opened_while_a_guest_counts)
{
	int event;

	self->vm = pmu_vm_create(&self->vcpu, guest_count);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	EXPECT_EQ(EOPNOTSUPP, open_event_as_nobody());
	event = open_event();
	if (mode_is("share")) {
		EXPECT_EQ(-EOPNOTSUPP, event);
		return;
	}
	EXPECT_LE(0, event);
	/* The guest has not been told yet, nobody's event comes second. */
	EXPECT_FALSE(waits());
	EXPECT_EQ(0, open_event_as_nobody());
	close(event);
	EXPECT_EQ(EOPNOTSUPP, open_event_as_nobody());
}

static void *vcpu_thread(void *vcpu)
{
	TEST_ASSERT(!run_guest(vcpu, NULL), "The guest has to end");
	return NULL;
}

/* Has to fail when a guest keeps the PMU, and when its counters lose a value. */
TEST_F(preferred_events, take_the_pmu_from_a_guest_which_goes_on_afterwards)
{
	u64 once, twice;

	if (!mode_is("prefer"))
		SKIP(return, "host_events is not prefer");

	once = count_of_taken_pmu(1);
	twice = count_of_taken_pmu(2);
	EXPECT_LE(ITERATIONS, once);
	EXPECT_EQ(ITERATIONS, twice - once);
}

#define ROUNDS		25

static u64 rounds, counted, stop;

/* Looks at a counter of its branches in rounds, until the host says @end. */
void count_on(u64 end);
void count_on(u64 end)
{
	while (READ_ONCE(stop) < end) {
		WRITE_ONCE(counted, pmc_read(0));
		WRITE_ONCE(rounds, rounds + 1);
	}
}

static void guest_count_on(void)
{
	pmu_reset();
	pmc_program(0, BRANCHES, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(0));
	count_on(1);
	wrmsr(vendor->global_control, 0);
	GUEST_DONE();
}

/* L2's code. */
extern char l2_count_on_svm[], l2_count_on_vmx[];

asm(
	".pushsection .text\n"
	"l2_count_on_svm: mov $1, %edi\n\t"
	"call count_on\n\t"
	"vmmcall\n"
	"l2_count_on_vmx: mov $1, %edi\n\t"
	"call count_on\n\t"
	"vmcall\n"
	".popsection\n");

static void guest_count_on_in_l2(void)
{
	pmu_reset();
	prepare_l2(host_cpu_is_intel ? l2_count_on_vmx : l2_count_on_svm);
	pmc_program(0, BRANCHES, PMC_COUNT, 0);
	run_l2(counter_bit(0), 0);

	wrmsr(vendor->global_control, counter_bit(0));
	count_on(2);
	wrmsr(vendor->global_control, 0);
	GUEST_DONE();
}

static u64 *in_guest(struct kvm_vm *vm, u64 *variable)
{
	return addr_gva2hva(vm, (gva_t)variable);
}

/* Lets the guest run some rounds; what it has counted then. */
static u64 after_rounds(struct kvm_vm *vm, unsigned int n)
{
	u64 *now = in_guest(vm, &rounds), begin = READ_ONCE(*now);

	while (READ_ONCE(*now) - begin < n)
		sched_yield();
	return READ_ONCE(*in_guest(vm, &counted));
}

static void start(struct kvm_vm *vm, struct kvm_vcpu *vcpu, pthread_t *thread)
{
	u64 count;

	TEST_ASSERT(!pthread_create(thread, NULL, vcpu_thread, vcpu), "Cannot create a thread");
	count = after_rounds(vm, ROUNDS);
	TEST_ASSERT(count < after_rounds(vm, ROUNDS), "The guest has to count");
}

/* The guest loses its PMU, and gets it back when @event is closed. */
static void wait_and_go_on(struct kvm_vm *vm, int event)
{
	u64 count;

	while (!waits())
		sched_yield();
	/* In the first round it may just be about to store what it has read. */
	count = after_rounds(vm, 2);
	TEST_ASSERT_EQ(count, after_rounds(vm, ROUNDS));

	close(event);
	while (waits())
		sched_yield();
	TEST_ASSERT(count < after_rounds(vm, ROUNDS), "The guest has to count again");
}

static void end(struct kvm_vm *vm, pthread_t thread, u64 end)
{
	WRITE_ONCE(*in_guest(vm, &stop), end);
	pthread_join(thread, NULL);
}

/* Has to fail when guests that run are not told. */
TEST_F(preferred_events, take_the_pmu_from_a_guest_that_runs_and_does_nothing_for_it)
{
	pthread_t thread;
	int event;

	if (!mode_is("prefer"))
		SKIP(return, "host_events is not prefer");

	self->vm = pmu_vm_create(&self->vcpu, guest_count_on);
	start(self->vm, self->vcpu, &thread);
	event = open_event();
	EXPECT_LE(0, event);
	wait_and_go_on(self->vm, event);
	end(self->vm, thread, 1);
}

/* Has to fail when L1 keeps it, too, or L2 does not. */
TEST_F(preferred_events, take_the_pmu_from_l1_when_l2_exits)
{
	pthread_t thread;
	u64 count;
	int event;

	if (!mode_is("prefer"))
		SKIP(return, "host_events is not prefer");
	if (!has_nested())
		SKIP(return, "KVM is loaded with nested=0");

	self->vm = pmu_vm_create(&self->vcpu, guest_count_on_in_l2);
	nested_alloc(self->vm);
	start(self->vm, self->vcpu, &thread);
	event = open_event();
	EXPECT_LE(0, event);
	count = after_rounds(self->vm, 2);
	EXPECT_LT(count, after_rounds(self->vm, ROUNDS));
	EXPECT_FALSE(waits());

	WRITE_ONCE(*in_guest(self->vm, &stop), 1);
	wait_and_go_on(self->vm, event);
	end(self->vm, thread, 2);
}

TEST_HARNESS_MAIN
