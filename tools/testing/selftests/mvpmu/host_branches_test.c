// SPDX-License-Identifier: GPL-2.0
/*
 * Branch stacks of the host beside a guest: samples of an event that excludes
 * guests have no branch of a guest, those of one that does not have some.
 *
 * Seen to fail without "perf/x86/amd: Do not record branches of guests for events
 * that exclude them", and without that of Intel.
 */
#include "host_branches.h"
#include "harness.h"
#include "processor.h"

#define NR_EXITS	10000
#define NR_CALLS	100	/* between two exits, more than are recorded */
#define PERIOD		10007	/* instructions of the kernel per sample */

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

/* Runs the guest; false: the CPU has no branch stack. */
static bool sample(struct kvm_vcpu *vcpu, bool exclude_guest, struct seen *seen)
{
	struct branch_event event;
	struct ucall uc;

	if (!open_branch_event(&event, PERIOD, exclude_guest))
		return false;
	enable_branch_event(&event);
	vcpu_run(vcpu);
	disable_branch_event(&event);
	TEST_ASSERT(get_ucall(vcpu, &uc) == UCALL_DONE, "The guest has not come to its end");
	*seen = look_at(&event, branch_of_guest());
	close_branch_event(&event);
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
