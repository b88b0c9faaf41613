// SPDX-License-Identifier: GPL-2.0
/*
 * The last branch record stack of a guest that records, beside those with whom it
 * shares the CPU's: events of the host that have branch stacks, and a guest of its
 * own (L2).  None has a branch of the other.
 */
#include "guest_branches.h"
#include "host_branches.h"
#include "harness.h"
#include "migrate.h"
#include "nested.h"

#define NR_EXITS	50	/* to userspace, and as many to the kernel */
#define NR_CALLS	100	/* between two of them, more than are recorded */
#define PERIOD		1009	/* instructions of the kernel per sample */
#define NR_SYSCALLS	100	/* of the host after each exit to userspace */
#define NR_OTHERS	12	/* more events than the CPU has counters */

static void guest_record_calls(void)
{
	struct branch calls[MAX_ENTRIES];
	unsigned int n;

	for (n = 0; n < MAX_ENTRIES; n++)
		calls[n] = (struct branch){
			.from = (u64)recorded_call,
			.to = (u64)recorded_target,
			.kind = CALL_IND,
		};
	clear_branches(JCC | RET | JMP_REL);
	record_calls(2 * NR_EXITS, NR_CALLS);
	expect_branches("calls", calls, nr_entries(), 0);
	GUEST_DONE();
}

FIXTURE(host_event) {
	struct branch_event event;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(host_event) {
	bool always;	/* enabled, or only when the guest has exited to userspace */
	unsigned int others;
};

FIXTURE_VARIANT_ADD(host_event, enabled) { .always = true, };
FIXTURE_VARIANT_ADD(host_event, enabled_at_exits) { .always = false, };
FIXTURE_VARIANT_ADD(host_event, taking_turns) { .always = true, .others = NR_OTHERS, };

FIXTURE_SETUP(host_event)
{
	const char *missing = branches_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create(&self->vcpu, guest_record_calls);
	ASSERT_TRUE(open_branch_event(&self->event, PERIOD, true));
}

FIXTURE_TEARDOWN(host_event)
{
	close_branch_event(&self->event);
	kvm_vm_free(self->vm);
}

/* They count what the first one samples. */
static void open_others(unsigned int nr)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.size = sizeof(attr),
		.exclude_user = 1,
		.exclude_guest = 1,
	};

	while (nr--)
		TEST_ASSERT(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0) >= 0,
			    "perf_event_open() failed");
}

static void execute_the_kernel(void)
{
	unsigned int i;

	for (i = 0; i < NR_SYSCALLS; i++)
		syscall(SYS_getppid);
}

/* Seen to fail when perf is not told that the branch stack is the guest's. */
TEST_F(host_event, neither_has_branches_of_the_other)
{
	unsigned int exits = 0;
	struct seen seen;

	open_others(variant->others);
	/* perf clears the stack for an event that has never been on. */
	enable_branch_event(&self->event);
	execute_the_kernel();
	if (!variant->always)
		disable_branch_event(&self->event);

	while (run_to_io(self->vcpu)) {
		if (!variant->always)
			enable_branch_event(&self->event);
		execute_the_kernel();
		if (!variant->always)
			disable_branch_event(&self->event);
		exits++;
	}
	disable_branch_event(&self->event);
	EXPECT_EQ(NR_EXITS, exits);

	seen = look_at(&self->event, (u64)recorded_call);
	EXPECT_LT(0, seen.samples);
	EXPECT_LT(0, seen.host);
	EXPECT_EQ(0, seen.guest);
}

#define SVM_ENTRIES		16

/* In the VMCB; libkvm does not name all of them. */
#define VMCB_MISC_CTL2		0xb8
#define VMCB_DBGCTL		0x670
#define VMCB_DBGEXTNCTL		0x698
#define VMCB_STACK		0xa70
#define VMCB_SELECT		0xb70
#define ENABLE_V_LBR		BIT_ULL(0)

/* Half an entry, from or to, as L1 has set it for L2. */
#define GIVEN(half)		(TO_VALID | (0x1000 + (half)))

static u64 *vmcb12(unsigned int offset)
{
	return (u64 *)((char *)svm->vmcb + offset);
}

static void guest_prepare_l2(u64 misc_ctl2, u64 control)
{
	unsigned int half;

	prepare_l2(l2_start);
	*vmcb12(VMCB_MISC_CTL2) = misc_ctl2;
	*vmcb12(VMCB_DBGCTL) = 0;
	/* Bits that are reserved are dropped. */
	*vmcb12(VMCB_DBGEXTNCTL) = control | BIT_ULL(0) | BIT_ULL(63);
	*vmcb12(VMCB_SELECT) = JCC | BIT_ULL(9) | BIT_ULL(63);
	for (half = 0; half < 2 * SVM_ENTRIES; half++)
		*vmcb12(VMCB_STACK + 8 * half) = GIVEN(half);
}

/* Either of them records, or both; L2 is the first one. */
static const struct {
	u64 l1, l2;
} rounds[] = { { 0, LBRSE }, { LBRSE, LBRSE }, { LBRSE, 0 }, { 0, LBRSE } };

static void guest_l2_has_its_own(void)
{
	const struct branch of_l1[] = {
		{ (u64)l1_first, (u64)l1_first_to, JMP_REL },
		{ (u64)l1_last, (u64)l1_last_to, JMP_REL },
	};
	const u64 of_l2[] = {
		(u64)l2_last, TO_VALID | (u64)l2_last_to,
		(u64)l2_first, TO_VALID | (u64)l2_first_to,
	};
	unsigned int round, half, new;
	u32 seen[2];

	for (round = 0; round < ARRAY_SIZE(rounds); round++) {
		guest_prepare_l2(ENABLE_V_LBR, rounds[round].l2);
		clear_branches(RET);
		record_around_svm(rounds[round].l1, svm->vmcb_gpa, seen);
		GUEST_ASSERT_EQ(svm->vmcb->control.exit_code, SVM_EXIT_VMMCALL);
		expect_branches("L1", of_l1, rounds[round].l1 ? ARRAY_SIZE(of_l1) : 0, 0);
		GUEST_ASSERT_EQ(rdmsr(MSR_AMD64_LBR_SELECT), RET);

		GUEST_ASSERT_EQ(seen[0], JCC);
		GUEST_ASSERT_EQ(seen[1], (u32)GIVEN(2 * SVM_ENTRIES - 1));
		GUEST_ASSERT_EQ(*vmcb12(VMCB_DBGEXTNCTL), rounds[round].l2);
		GUEST_ASSERT_EQ(*vmcb12(VMCB_SELECT), JCC);
		new = rounds[round].l2 ? ARRAY_SIZE(of_l2) : 0;
		for (half = 0; half < 2 * SVM_ENTRIES; half++)
			GUEST_ASSERT_EQ(*vmcb12(VMCB_STACK + 8 * half),
					half < new ? of_l2[half] : GIVEN(half - new));
	}
	GUEST_DONE();
}

static void guest_l2_has_that_of_l1(void)
{
	const struct branch of_both[] = {
		{ (u64)l1_first, (u64)l1_first_to, JMP_REL },
		{ (u64)l2_first, (u64)l2_first_to, JMP_REL },
		{ (u64)l2_last, (u64)l2_last_to, JMP_REL },
		{ (u64)l1_last, (u64)l1_last_to, JMP_REL },
	};
	unsigned int round, half;
	u32 seen[2];

	for (round = 0; round < ARRAY_SIZE(rounds); round++) {
		guest_prepare_l2(0, rounds[round].l2);
		clear_branches(RET);
		record_around_svm(rounds[round].l1, svm->vmcb_gpa, seen);
		GUEST_ASSERT_EQ(svm->vmcb->control.exit_code, SVM_EXIT_VMMCALL);
		GUEST_ASSERT_EQ(seen[0], RET);
		GUEST_ASSERT_EQ(seen[1], 0);
		expect_branches("both", of_both, rounds[round].l1 ? ARRAY_SIZE(of_both) : 0, 0);
		/* Not touched. */
		for (half = 0; half < 2 * SVM_ENTRIES; half++)
			GUEST_ASSERT_EQ(*vmcb12(VMCB_STACK + 8 * half), GIVEN(half));
	}
	GUEST_DONE();
}

/* With VMX it is always so. */
static void guest_vmx_l2_has_that_of_l1(void)
{
	const struct branch of_both[] = {
		{ (u64)l1_first_vmx, (u64)l1_first_to_vmx, JMP_REL },
		{ (u64)l2_first_vmx, (u64)l2_first_to_vmx, JMP_REL },
		{ (u64)l2_last_vmx, (u64)l2_last_to_vmx, JMP_REL },
		{ (u64)l1_last_vmx, (u64)l1_last_to_vmx, JMP_REL },
	};
	unsigned int round;
	u64 control;
	u32 seen[2];

	for (round = 0; round < ARRAY_SIZE(rounds); round++) {
		prepare_l2(l2_start_vmx);
		clear_branches(RET);
		/* That of L2 is not asked for: it has none. */
		control = rounds[round].l1 ? recording : 0;
		record_around_vmx(control, 0, seen);
		GUEST_ASSERT_EQ(vmreadz(VM_EXIT_REASON), EXIT_REASON_VMCALL);
		GUEST_ASSERT_EQ(seen[0], (u32)control);
		GUEST_ASSERT_EQ(seen[1], 0);
		expect_branches("both", of_both, control ? ARRAY_SIZE(of_both) : 0, 0);
		vmxoff();
	}
	GUEST_DONE();
}

FIXTURE(nested) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(nested) {
	bool migrates;	/* to a new VM, while L2 runs */
};

FIXTURE_VARIANT_ADD(nested, stays) { .migrates = false, };
FIXTURE_VARIANT_ADD(nested, migrates) { .migrates = true, };

FIXTURE_SETUP(nested)
{
	const char *missing = branches_missing();

	if (missing)
		SKIP(return, "%s", missing);
	if (!has_nested())
		SKIP(return, "KVM is loaded with nested=0");

	self->vm = pmu_vm_create(&self->vcpu, NULL);
	nested_alloc(self->vm);
}

FIXTURE_TEARDOWN(nested)
{
	if (self->vm)
		kvm_vm_free(self->vm);
}

static void run_l1(struct kvm_vcpu *vcpu, void *code, bool migrates)
{
	unsigned int exits = 0;

	vcpu_arch_set_entry_point(vcpu, code);
	while (run_to_io(vcpu)) {
		exits++;
		if (migrates)
			migrate(&vcpu);
	}
	TEST_ASSERT_EQ(exits, ARRAY_SIZE(rounds));
}

TEST_F(nested, l2_has_a_stack_of_its_own_with_lbr_virtualization)
{
	if (host_cpu_is_intel)
		SKIP(return, "VMX has no LBR virtualization for L2");

	ASSERT_TRUE(kvm_cpu_has(X86_FEATURE_LBRV));
	run_l1(self->vcpu, guest_l2_has_its_own, variant->migrates);
}

TEST_F(nested, l1_and_l2_share_one_without)
{
	run_l1(self->vcpu, host_cpu_is_intel ? guest_vmx_l2_has_that_of_l1 :
					       guest_l2_has_that_of_l1, variant->migrates);
}

TEST_HARNESS_MAIN
