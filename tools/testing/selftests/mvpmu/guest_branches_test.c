// SPDX-License-Identifier: GPL-2.0
/*
 * A guest's last branch record stack has each branch that it has taken while it
 * recorded, and nothing else, whatever comes between: VM exits, other guests,
 * other CPUs, a new VM.
 *
 * The sequences of branches are in known_branches.S.
 */
#include <sched.h>

#include "guest_branches.h"
#include "kvm_test_harness.h"
#include "migrate.h"

#define ROUNDS		3
#define NR_DORMANT	63	/* times NR_EXITS_OF_SEQUENCE */
#define ENTRY_VALUE(n)	(TO_VALID | (0x1000 + (n)))

/* To the guest. */
static enum sequence_nr chosen;

/* Seen from the host, a sequence is in the middle at each exit to userspace. */
static void guest_run_chosen(void)
{
	unsigned int round;

	for (round = 0; round < ROUNDS; round++) {
		clear_branches(0);
		sequences[chosen].run(LBRSE);
		expect_sequence(chosen);
	}
	GUEST_DONE();
}

static void guest_run_each(void)
{
	enum sequence_nr nr;

	for (nr = PLAIN; nr < COUNTED; nr++) {
		clear_branches(0);
		sequences[nr].run(LBRSE);
		expect_sequence(nr);
	}
	GUEST_DONE();
}

static void guest_entries(u64 first)
{
	unsigned int n;

	for (n = 2; n < NR_LBR_MSRS; n++)
		wrmsr(lbr_msr(n), TO_VALID | (first + n));
	for (n = 2; n < NR_LBR_MSRS; n++)
		GUEST_ASSERT_EQ(rdmsr(lbr_msr(n)), TO_VALID | (first + n));
}

static void guest_registers(void)
{
	unsigned int n;
	u64 value;

	for (n = 0; n < NR_LBR_MSRS; n++)
		GUEST_ASSERT_EQ(rdmsr(lbr_msr(n)), 0);
	guest_entries(0x1000);
	wrmsr(MSR_AMD64_LBR_SELECT, ~0ull);
	GUEST_ASSERT_EQ(rdmsr(MSR_AMD64_LBR_SELECT), SELECT_MASK);
	for (n = 0; n < 64; n++) {
		value = BIT_ULL(n) | LBRSE;
		GUEST_ASSERT_EQ(wrmsr_safe(MSR_AMD_DBG_EXTN_CFG, value),
				value == LBRSE ? 0 : GP_VECTOR);
	}
	GUEST_ASSERT_EQ(rdmsr(MSR_AMD_DBG_EXTN_CFG), LBRSE);
	wrmsr(MSR_AMD_DBG_EXTN_CFG, 0);
	/* They may pass through from now on. */
	guest_entries(0x2000);
	GUEST_ASSERT_EQ(rdmsr(MSR_AMD64_LBR_SELECT), SELECT_MASK);
	wrmsr(MSR_AMD64_LBR_SELECT, BIT_ULL(9) | BIT_ULL(63));
	GUEST_ASSERT_EQ(rdmsr(MSR_AMD64_LBR_SELECT), 0);
	wrmsr(MSR_IA32_DEBUGCTLMSR, FLBRI | FPMCI);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_DEBUGCTLMSR), FLBRI | FPMCI);
	wrmsr(MSR_IA32_DEBUGCTLMSR, 0);
	GUEST_DONE();
}

static void guest_filters(void)
{
	u64 select, suppressed;

	for (select = 0; select <= SELECT_MASK; select = select ? 2 * select : 1) {
		clear_branches(select);
		sequences[PLAIN].run(LBRSE);
		/* All of it is in the kernel. */
		suppressed = select == IN_KERNEL ? SELECT_MASK : select;
		expect_branches("filtered", sequences[PLAIN].taken, NR_TAKEN, suppressed);
	}
	GUEST_DONE();
}

static void guest_count(void)
{
	u64 control, instructions[2];
	unsigned int i;

	for (i = 0; i < 2; i++) {
		control = i ? LBRSE : 0;
		pmu_reset();
		clear_branches(0);
		pmc_program(0, BRANCHES, PMC_COUNT, 0);
		pmc_program(1, INSTRUCTIONS, PMC_COUNT, 0);
		sequences[COUNTED].run(control);
		GUEST_ASSERT_EQ(pmc_read(0), NR_RETIRED);
		instructions[i] = pmc_read(1);
		if (control)
			expect_sequence(COUNTED);
		else
			expect_branches("not recorded", NULL, 0, 0);
	}
	GUEST_ASSERT_EQ(instructions[0], instructions[1]);
	/* The same branches without. */
	pmu_reset();
	sequences[PLAIN].run(LBRSE);
	expect_sequence(PLAIN);
	GUEST_DONE();
}

static void guest_dormant(void)
{
	unsigned int i;

	clear_branches(0);
	sequences[PLAIN].run(LBRSE);
	for (i = 0; i < NR_DORMANT; i++) {
		sequences[OVER_CPUID].run(0);
		sequences[OVER_PIO].run(0);
	}
	expect_sequence(PLAIN);
	sequences[OVER_PIO].run(LBRSE);
	expect_sequence(OVER_PIO);
	GUEST_DONE();
}

FIXTURE(guest_branches) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(guest_branches)
{
	const char *missing = branches_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create(&self->vcpu, guest_run_chosen);
	map_mmio(self->vm);
}

FIXTURE_TEARDOWN(guest_branches)
{
	kvm_vm_free(self->vm);
}

static void run_to_end(struct kvm_vcpu *vcpu, void *guest_code)
{
	vcpu_arch_set_entry_point(vcpu, guest_code);
	while (run_to_io(vcpu))
		;
}

static void choose(struct kvm_vm *vm, enum sequence_nr nr)
{
	chosen = nr;
	sync_global_to_guest(vm, chosen);
}

TEST_F(guest_branches, cpuid_says_how_many_there_are)
{
	EXPECT_TRUE(kvm_cpu_has(X86_FEATURE_LBR_PMC_FREEZE));
	EXPECT_EQ(NR_ENTRIES, kvm_cpu_property(X86_PROPERTY_LBR_STACK_SIZE));
}

TEST_F(guest_branches, userspace_reads_and_writes_each_register)
{
	unsigned int n;

	for (n = 0; n < NR_LBR_MSRS; n++) {
		EXPECT_TRUE(kvm_msr_is_in_save_restore_list(lbr_msr(n)));
		EXPECT_EQ(0, vcpu_get_msr(self->vcpu, lbr_msr(n)));
	}
	for (n = 2; n < NR_LBR_MSRS; n++)
		vcpu_set_msr(self->vcpu, lbr_msr(n), ENTRY_VALUE(n));
	vcpu_set_msr(self->vcpu, MSR_AMD64_LBR_SELECT, SELECT_MASK);
	vcpu_set_msr(self->vcpu, MSR_AMD_DBG_EXTN_CFG, LBRSE);
	for (n = 0; n < 64; n++)
		if (BIT_ULL(n) != LBRSE)
			EXPECT_EQ(0, _vcpu_set_msr(self->vcpu, MSR_AMD_DBG_EXTN_CFG, BIT_ULL(n)));

	for (n = 2; n < NR_LBR_MSRS; n++)
		EXPECT_EQ(ENTRY_VALUE(n), vcpu_get_msr(self->vcpu, lbr_msr(n)));
	EXPECT_EQ(SELECT_MASK, vcpu_get_msr(self->vcpu, MSR_AMD64_LBR_SELECT));
	EXPECT_EQ(LBRSE, vcpu_get_msr(self->vcpu, MSR_AMD_DBG_EXTN_CFG));
}

TEST_F(guest_branches, guest_reads_and_writes_each_register)
{
	run_to_end(self->vcpu, guest_registers);
}

TEST_F(guest_branches, each_branch_is_there_over_exits)
{
	run_to_end(self->vcpu, guest_run_each);
}

TEST_F(guest_branches, counters_and_records_do_not_disturb_each_other)
{
	run_to_end(self->vcpu, guest_count);
}

TEST_F(guest_branches, each_filter_suppresses_its_kind)
{
	run_to_end(self->vcpu, guest_filters);
}

TEST_F(guest_branches, filters_know_user_mode)
{
	static const u64 selects[] = { 0, IN_USER, IN_KERNEL };
	struct kvm_vcpu *vcpu = self->vcpu;
	struct kvm_regs regs;
	unsigned int i;

	vcpu_arch_set_entry_point(vcpu, user_out);
	vcpu_regs_get(vcpu, &regs);
	regs.rdx = TEST_PORT;
	vcpu_regs_set(vcpu, &regs);
	enter_user_mode(vcpu);
	ASSERT_TRUE(run_to_io(vcpu));

	/* Userspace enables it. */
	vcpu_set_msr(vcpu, MSR_AMD_DBG_EXTN_CFG, LBRSE);
	for (i = 0; i < ARRAY_SIZE(selects); i++) {
		bool suppressed = selects[i] == IN_USER;

		vcpu_set_msr(vcpu, LBR_FROM(0), 0);
		vcpu_set_msr(vcpu, LBR_TO(0), 0);
		vcpu_set_msr(vcpu, MSR_AMD64_LBR_SELECT, selects[i]);
		ASSERT_TRUE(run_to_io(vcpu));
		EXPECT_EQ(suppressed ? 0 : (u64)user_jmp, vcpu_get_msr(vcpu, LBR_FROM(0)));
		EXPECT_EQ(suppressed ? 0 : TO_VALID | (u64)user_out,
			  vcpu_get_msr(vcpu, LBR_TO(0)));
	}
}

TEST_F(guest_branches, stack_outlives_exits_without_recording)
{
	run_to_end(self->vcpu, guest_dormant);
}

TEST_F(guest_branches, two_guests_on_one_cpu_have_their_own)
{
	struct kvm_vcpu *other;
	struct kvm_vm *vm = pmu_vm_create(&other, guest_run_chosen);
	unsigned int exits = 0;

	choose(self->vm, OVER_PIO);
	choose(vm, OVER_PIO_TOO);
	pin_self_to_cpu(sched_getcpu());
	while (run_to_io(self->vcpu)) {
		exits++;
		ASSERT_TRUE(run_to_io(other));
		expect_only(self->vcpu, OVER_PIO);
		expect_only(other, OVER_PIO_TOO);
	}
	EXPECT_EQ(ROUNDS * NR_EXITS_OF_SEQUENCE, exits);
	EXPECT_FALSE(run_to_io(other));
	kvm_vm_free(vm);
}

TEST_F(guest_branches, stack_moves_with_the_vcpu_to_other_cpus)
{
	cpu_set_t cpus;
	int cpu = 0;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(cpus), &cpus));
	if (CPU_COUNT(&cpus) < 2)
		SKIP(return, "there is one CPU");

	choose(self->vm, OVER_PIO);
	while (run_to_io(self->vcpu)) {
		do {
			cpu = (cpu + 1) % CPU_SETSIZE;
		} while (!CPU_ISSET(cpu, &cpus));
		pin_self_to_cpu(cpu);
	}
}

TEST_F(guest_branches, stack_is_restored_in_a_new_vm)
{
	choose(self->vm, OVER_PIO);
	while (run_to_io(self->vcpu))
		migrate(&self->vcpu);
}

TEST_HARNESS_MAIN
