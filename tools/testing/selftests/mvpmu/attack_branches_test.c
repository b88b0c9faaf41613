// SPDX-License-Identifier: GPL-2.0
/*
 * Attack: a guest looks for branches of others in its last branch records, while a
 * victim on the same CPU records, and the host does.  It records none itself, so that
 * each entry that is not 0 is a leak.
 *
 * Seen to fail when the records are not loaded for the attacker ("records-not-loaded"),
 * and when perf does not clear those of the host before.
 */
#include <sched.h>

#include "guest_branches.h"
#include "host_branches.h"
#include "harness.h"

#define NR_TURNS	100
#define NR_SYSCALLS	20
#define PERIOD		1009

/* To the attacker: whether it has recording enabled, of no kind. */
static bool enables;

/* Guest: the entries that are not 0, and the last of them. */
static unsigned int look(u64 *found)
{
	unsigned int n, nr = 0;
	u64 value;

	for (n = FIRST_ENTRY; n < nr_lbr_msrs(); n++) {
		value = rdmsr(lbr_msr(n));
		if (value) {
			*found = value;
			nr++;
		}
	}
	return nr;
}

static void guest_attack(void)
{
	unsigned int turn, leaks;
	u64 found = 0;

	for (turn = 0; turn < NR_TURNS; turn++) {
		leaks = look(&found);
		__GUEST_ASSERT(!leaks, "turn %u: %u registers, one has 0x%lx", turn, leaks, found);
		if (enables && !host_cpu_is_intel)
			wrmsr(MSR_AMD64_LBR_SELECT, SELECT_MASK);
		if (enables)
			wrmsr(lbr_control(), recording_of(SELECT_MASK));
		asm volatile("out %%al, %%dx" : : "a"(0), "d"(TEST_PORT));
	}
	GUEST_DONE();
}

/* What the attacker looks for is there. */
static void guest_be_attacked(void)
{
	unsigned int turn;
	u64 found;

	clear_branches(0);
	for (turn = 0; turn < NR_TURNS / NR_EXITS_OF_SEQUENCE + 1; turn++) {
		sequences[OVER_PIO].run(recording);
		GUEST_ASSERT_NE(look(&found), 0);
	}
	GUEST_DONE();
}

FIXTURE(attack_branches) {
	struct kvm_vcpu *attacker, *victim;
	struct branch_event event;
	struct kvm_vm *vm, *vm_of_victim;
};

FIXTURE_VARIANT(attack_branches) {
	bool enables;
};

FIXTURE_VARIANT_ADD(attack_branches, recording) { .enables = true, };
FIXTURE_VARIANT_ADD(attack_branches, dormant) { .enables = false, };

FIXTURE_SETUP(attack_branches)
{
	const char *missing = branches_missing();

	if (missing)
		SKIP(return, "%s", missing);

	enables = variant->enables;
	self->vm_of_victim = pmu_vm_create(&self->victim, guest_be_attacked);
	self->vm = pmu_vm_create(&self->attacker, guest_attack);
	sync_global_to_guest(self->vm, enables);
	ASSERT_TRUE(open_branch_event(&self->event, PERIOD, true));
	pin_self_to_cpu(sched_getcpu());
}

FIXTURE_TEARDOWN(attack_branches)
{
	close_branch_event(&self->event);
	kvm_vm_free(self->vm);
	kvm_vm_free(self->vm_of_victim);
}

static void expect_none(struct kvm_vcpu *vcpu)
{
	unsigned int n;

	for (n = FIRST_ENTRY; n < nr_lbr_msrs(); n++)
		TEST_ASSERT_EQ(vcpu_get_msr(vcpu, lbr_msr(n)), 0);
}

TEST_F(attack_branches, guest_finds_none_of_another_guest)
{
	unsigned int turns = 0;

	while (run_to_io(self->attacker)) {
		turns++;
		ASSERT_TRUE(run_to_io(self->victim));
		expect_none(self->attacker);
	}
	EXPECT_EQ(NR_TURNS, turns);
}

TEST_F(attack_branches, guest_finds_none_of_the_host)
{
	unsigned int i, turns = 0;

	while (run_to_io(self->attacker)) {
		turns++;
		enable_branch_event(&self->event);
		for (i = 0; i < NR_SYSCALLS; i++)
			syscall(SYS_getppid);
		disable_branch_event(&self->event);
	}
	EXPECT_EQ(NR_TURNS, turns);
	EXPECT_LT(0, look_at(&self->event, 0).host);
}

TEST_HARNESS_MAIN
