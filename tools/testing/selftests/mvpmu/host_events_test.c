// SPDX-License-Identifier: GPL-2.0
/*
 * Events of the host that count in guests, too, and guests that count: one at a
 * time.  With mvpmu's host_events=refuse, and with KVM's C code, a VM with a PMU
 * has it for all of its life; with host_events=share whoever comes first has it,
 * and a guest that comes second waits; with host_events=prefer, too, and see
 * preferred_events_test.c.
 */
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "host_events.h"
#include "harness.h"
#include "payload.h"

#define ITERATIONS	1000

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

/*
 * Does nothing for the counter but to look at it.  It counts branches, of which
 * KVM emulates none: emulated instructions are counted all the time.
 */
static void guest_wait(void)
{
	pmu_reset();
	pmc_program(0, BRANCHES, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(0));
	while (!rdmsr(counter_msr(0)))
		;
	wrmsr(vendor->global_control, 0);

	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	measure_loop(counter_bit(0), ITERATIONS);
	GUEST_ASSERT_EQ(expected(), pmc_read(0));
	GUEST_DONE();
}

FIXTURE(host_events) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(host_events)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN(host_events)
{
	if (self->vm)
		kvm_vm_free(self->vm);
}

/* Has to fail when perf knows only of vCPUs that count. */
TEST_F(host_events, cannot_be_opened_while_a_vm_exists)
{
	if (!mode_is("refuse"))
		SKIP(return, "host_events is not refuse");

	EXPECT_EQ(0, open_event_as_nobody());
	self->vm = pmu_vm_create(&self->vcpu, guest_count);
	EXPECT_EQ(EOPNOTSUPP, open_event_as_nobody());
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	EXPECT_EQ(EOPNOTSUPP, open_event_as_nobody());

	kvm_vm_free(self->vm);
	self->vm = NULL;
	EXPECT_EQ(0, open_event_as_nobody());
}

/* Has to fail when perf knows only of vCPUs that count. */
TEST_F(host_events, keep_a_vm_from_its_first_vcpu)
{
	int event, vcpu;

	if (!mode_is("refuse"))
		SKIP(return, "host_events is not refuse");

	event = open_event();
	ASSERT_GE(event, 0);
	self->vm = vm_create_barebones();
	vm_create_irqchip(self->vm);
	EXPECT_EQ(-1, __vm_ioctl(self->vm, KVM_CREATE_VCPU, (void *)0ul));
	EXPECT_EQ(EBUSY, errno);

	close(event);
	vcpu = __vm_ioctl(self->vm, KVM_CREATE_VCPU, (void *)0ul);
	EXPECT_LE(0, vcpu);
	close(vcpu);
}

/* Has to fail when perf knows of the VM for all of its life. */
TEST_F(host_events, can_be_opened_while_no_guest_counts)
{
	if (mode_is("refuse"))
		SKIP(return, "host_events=refuse");

	self->vm = pmu_vm_create(&self->vcpu, guest_count);
	EXPECT_EQ(0, open_event_as_nobody());
	EXPECT_FALSE(waits());
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	EXPECT_EQ(EOPNOTSUPP, open_event_as_nobody());
}

static void *vcpu_thread(void *vcpu)
{
	TEST_ASSERT(!run_guest(vcpu, NULL), "The guest has to end");
	return NULL;
}

/* Has to hang when KVM does not ask perf again. */
TEST_F(host_events, let_a_guest_wait_which_goes_on_when_they_are_closed)
{
	pthread_t thread;
	int event;

	if (mode_is("refuse"))
		SKIP(return, "host_events=refuse");

	event = open_event();
	ASSERT_GE(event, 0);
	self->vm = pmu_vm_create(&self->vcpu, guest_wait);
	ASSERT_EQ(0, pthread_create(&thread, NULL, vcpu_thread, self->vcpu));
	while (!waits())
		sched_yield();

	close(event);
	pthread_join(thread, NULL);
	EXPECT_FALSE(waits());
}

TEST_HARNESS_MAIN
