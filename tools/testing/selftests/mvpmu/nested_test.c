// SPDX-License-Identifier: GPL-2.0
/*
 * A guest (L1) that runs a guest of its own (L2) counts both exactly, from
 * L2's first instruction on, whoever enables the counters, and when.
 */
#include "harness.h"
#include "payload.h"
#include "nested.h"

#define ITERATIONS	100000
/* The first one finds no counter in use, the second one those of the first. */
#define ROUNDS		3

#define GUEST_ONLY	BIT_ULL(40)
#define HOST_ONLY	BIT_ULL(41)

static u64 l2_count;
static u64 l2_flags;

/*
 * What L2 runs, with the registers as L1 leaves them.  In r8 the iterations: two
 * instructions and a branch each.  Or the value for GLOBAL_CTRL, whose number is
 * in rcx: three instructions.  The one that exits is not counted.
 */
#define L2_WRITE_INSTRUCTIONS	3

extern char l2_loop_svm[], l2_loop_vmx[], l2_write_svm[], l2_write_vmx[];
extern char l2_count_itself_svm[], l2_count_itself_vmx[];

asm(
	".pushsection .text\n"
	"l2_loop_svm: dec %r8\n\t"
	"jnz l2_loop_svm\n\t"
	"vmmcall\n"
	"l2_loop_vmx: dec %r8\n\t"
	"jnz l2_loop_vmx\n\t"
	"vmcall\n"
	"l2_write_svm: mov %r8d, %eax\n\t"
	"xor %edx, %edx\n\t"
	"wrmsr\n\t"
	"vmmcall\n"
	"l2_count_itself_svm: call count_itself\n\t"
	"vmmcall\n"
	"l2_count_itself_vmx: call count_itself\n\t"
	"vmcall\n"
	"l2_write_vmx: mov %r8d, %eax\n\t"
	"xor %edx, %edx\n\t"
	"wrmsr\n\t"
	"vmcall\n"
	".popsection\n");

/*
 * What L1 itself runs with the counters on before it enters L2, beside the
 * instruction that does, and after that.
 */
#define L1_BEFORE_SVM	1
#define L1_BEFORE_VMX	0
#define L1_AFTER	MEASURE_INSTRUCTIONS

/* L2 is not entered by instructions that KVM counts on VMX, but by a branch. */
static u64 l1_before(void)
{
	return host_cpu_is_intel ? L1_BEFORE_VMX : L1_BEFORE_SVM;
}

static u64 l1_instructions(void)
{
	return l1_before() + L1_AFTER;
}

static u64 entry_count(enum pmu_event event)
{
	return host_cpu_is_intel == (event == BRANCHES);
}

static void rewind_l2(void *code)
{
	void *stack = &l2_stack[L2_STACK];

	if (host_cpu_is_intel) {
		vmwrite(GUEST_RIP, (u64)code);
		vmwrite(GUEST_RSP, (u64)stack);
	} else {
		svm->vmcb->save.rip = (u64)code;
		svm->vmcb->save.rsp = (u64)stack;
	}
}

static void *l2_loop(void)
{
	return host_cpu_is_intel ? l2_loop_vmx : l2_loop_svm;
}

static void *l2_count_itself(void)
{
	return host_cpu_is_intel ? l2_count_itself_vmx : l2_count_itself_svm;
}

static void *l2_write(void)
{
	return host_cpu_is_intel ? l2_write_vmx : l2_write_svm;
}

static void guest_check(unsigned int round, u64 expected)
{
	u64 count = pmc_read(0);

	__GUEST_ASSERT(count == expected, "round %u: expected %lu, counted %lu",
		       round, expected, count);
	wrmsr(counter_msr(0), 0);
}

static u64 l1_flags;
static enum pmu_event l1_event;
static u64 expected;

static void guest_l1_enables(void)
{
	unsigned int round;

	pmu_reset();
	prepare_l2(l2_loop());
	pmc_program(0, l1_event, PMC_COUNT | l1_flags, 0);
	for (round = 0; round < ROUNDS; round++) {
		rewind_l2(l2_loop());
		run_l2(counter_bit(0), ITERATIONS);
		guest_check(round, expected);
	}
	GUEST_DONE();
}

/* Called by L2. */
void count_itself(void);
void count_itself(void)
{
	pmc_program(0, INSTRUCTIONS, PMC_COUNT | l2_flags, 0);
	measure_loop(counter_bit(0), ITERATIONS);
	l2_count = pmc_read(0);
}

static void guest_l2_enables(void)
{
	unsigned int round;

	pmu_reset();
	prepare_l2(l2_count_itself());
	for (round = 0; round < ROUNDS; round++) {
		l2_count = 0;
		rewind_l2(l2_count_itself());
		run_l2(0, 0);
		__GUEST_ASSERT(l2_count == expected, "round %u: expected %lu, counted %lu",
			       round, expected, l2_count);
		/* L1 finds the same. */
		guest_check(round, expected);
		pmc_program(0, INSTRUCTIONS, 0, 0);
	}
	GUEST_DONE();
}

/* L1 writes GLOBAL_CTRL, L2 another value, with which L1 goes on. */
static u64 l1_control, l2_control;

static void guest_l2_writes_global_ctrl(void)
{
	unsigned int round;

	pmu_reset();
	prepare_l2(l2_write());
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	for (round = 0; round < ROUNDS; round++) {
		rewind_l2(l2_write());
		run_l2(l1_control, l2_control);
		guest_check(round, expected);
	}
	GUEST_DONE();
}

/* vmcs12 itself loads GLOBAL_CTRL. */
static u64 entry_control, exit_control;

static void guest_vmcs12_loads(void)
{
	unsigned int round;

	pmu_reset();
	prepare_l2(l2_loop());
	vmwrite(VM_ENTRY_CONTROLS,
		vmreadz(VM_ENTRY_CONTROLS) | VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL);
	vmwrite(VM_EXIT_CONTROLS,
		vmreadz(VM_EXIT_CONTROLS) | VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL);
	vmwrite(GUEST_IA32_PERF_GLOBAL_CTRL, entry_control);
	vmwrite(HOST_IA32_PERF_GLOBAL_CTRL, exit_control);
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	for (round = 0; round < ROUNDS; round++) {
		rewind_l2(l2_loop());
		run_l2(0, ITERATIONS);
		guest_check(round, expected);
	}
	GUEST_DONE();
}

FIXTURE(nested) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(nested)
{
	const char *missing = pmu_missing();

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

static void run_l1(struct kvm_vcpu *vcpu, void *code)
{
	vcpu_arch_set_entry_point(vcpu, code);
	sync_global_to_guest(vcpu->vm, l1_flags);
	sync_global_to_guest(vcpu->vm, l1_event);
	sync_global_to_guest(vcpu->vm, l2_flags);
	sync_global_to_guest(vcpu->vm, expected);
	sync_global_to_guest(vcpu->vm, l1_control);
	sync_global_to_guest(vcpu->vm, l2_control);
	sync_global_to_guest(vcpu->vm, entry_control);
	sync_global_to_guest(vcpu->vm, exit_control);
	TEST_ASSERT(!run_guest(vcpu, NULL), "The guest has to end");
}

TEST_F(nested, l1_counts_the_instructions_of_both)
{
	l1_flags = 0;
	l1_event = INSTRUCTIONS;
	expected = l1_instructions() + entry_count(INSTRUCTIONS) + 2 * ITERATIONS;
	run_l1(self->vcpu, guest_l1_enables);
}

TEST_F(nested, l1_counts_the_branches_of_both)
{
	l1_flags = 0;
	l1_event = BRANCHES;
	expected = entry_count(BRANCHES) + ITERATIONS;
	run_l1(self->vcpu, guest_l1_enables);
}

/* VMRUN itself counts in guest mode. */
TEST_F(nested, guest_only_counts_l2)
{
	if (host_cpu_is_intel)
		SKIP(return, "of AMD CPUs only");

	l1_flags = GUEST_ONLY;
	l1_event = INSTRUCTIONS;
	expected = entry_count(INSTRUCTIONS) + 2 * ITERATIONS;
	run_l1(self->vcpu, guest_l1_enables);
}

TEST_F(nested, host_only_counts_l1)
{
	if (host_cpu_is_intel)
		SKIP(return, "of AMD CPUs only");

	l1_flags = HOST_ONLY;
	l1_event = INSTRUCTIONS;
	expected = l1_instructions();
	run_l1(self->vcpu, guest_l1_enables);
}

TEST_F(nested, guest_only_and_host_only_count_both)
{
	if (host_cpu_is_intel)
		SKIP(return, "of AMD CPUs only");

	l1_flags = GUEST_ONLY | HOST_ONLY;
	l1_event = INSTRUCTIONS;
	expected = l1_instructions() + entry_count(INSTRUCTIONS) + 2 * ITERATIONS;
	run_l1(self->vcpu, guest_l1_enables);
}

TEST_F(nested, l2_counts_itself)
{
	l2_flags = 0;
	expected = 1 + 2 * ITERATIONS + MEASURE_INSTRUCTIONS;
	run_l1(self->vcpu, guest_l2_enables);
}

TEST_F(nested, l2_counts_itself_with_guest_only)
{
	if (host_cpu_is_intel)
		SKIP(return, "of AMD CPUs only");

	l2_flags = GUEST_ONLY;
	expected = 1 + 2 * ITERATIONS + MEASURE_INSTRUCTIONS;
	run_l1(self->vcpu, guest_l2_enables);
}

/* L1 starts the counters, L2 stops them: its WRMSR is the last that is counted. */
TEST_F(nested, l1_goes_on_as_l2_stopped_the_counters)
{
	l1_control = counter_bit(0);
	l2_control = 0;
	expected = l1_before() +
		   entry_count(INSTRUCTIONS) + L2_WRITE_INSTRUCTIONS;
	run_l1(self->vcpu, guest_l2_writes_global_ctrl);
}

/* L2 starts the counters, L1 stops them. */
TEST_F(nested, l1_goes_on_as_l2_started_the_counters)
{
	l1_control = 0;
	l2_control = counter_bit(0);
	expected = L1_AFTER;
	run_l1(self->vcpu, guest_l2_writes_global_ctrl);
}

static bool vmcs12_can_load(void)
{
	return host_cpu_is_intel &&
	       kvm_get_feature_msr(MSR_IA32_VMX_TRUE_ENTRY_CTLS) >> 32 &
			VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL &&
	       kvm_get_feature_msr(MSR_IA32_VMX_TRUE_EXIT_CTLS) >> 32 &
			VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL;
}

TEST_F(nested, vmcs12_enables_for_l2)
{
	if (!vmcs12_can_load())
		SKIP(return, "of Intel CPUs only");

	entry_control = counter_bit(0);
	exit_control = 0;
	expected = 2 * ITERATIONS;
	run_l1(self->vcpu, guest_vmcs12_loads);
}

TEST_F(nested, vmcs12_enables_for_l1)
{
	if (!vmcs12_can_load())
		SKIP(return, "of Intel CPUs only");

	entry_control = 0;
	exit_control = counter_bit(0);
	expected = L1_AFTER;
	run_l1(self->vcpu, guest_vmcs12_loads);
}

TEST_HARNESS_MAIN
