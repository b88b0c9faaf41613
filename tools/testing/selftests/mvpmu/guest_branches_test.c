// SPDX-License-Identifier: GPL-2.0
/*
 * A guest's last branch record stack has each branch that it has taken while it
 * recorded, and nothing else, whatever comes between: VM exits, other guests,
 * other CPUs, a new VM.
 *
 * The sequences of branches are in known_branches.S.
 */
#include <sched.h>

#include "control_group.h"
#include "guest_branches.h"
#include "harness.h"
#include "migrate.h"

#define ROUNDS		3
#define NR_DORMANT	63	/* times NR_EXITS_OF_SEQUENCE */
#define NR_OFFLINE	6	/* even */

/* Something that register @n of an entry can hold; INFO of Intel has 16 bits of a number. */
static u64 entry_value(u64 first, unsigned int n)
{
	return to_valid() | (first + n);
}

/* Bits of lbr_control() that there are. */
static u64 control_mask(void)
{
	return host_cpu_is_intel ? 0x7f000f : LBRSE;
}

/* To the guest. */
static enum sequence_nr chosen;

/* Seen from the host, a sequence is in the middle at each exit to userspace. */
static void guest_run_chosen(void)
{
	unsigned int round;

	for (round = 0; round < ROUNDS; round++) {
		clear_branches(0);
		sequences[chosen].run(recording);
		expect_sequence(chosen);
	}
	GUEST_DONE();
}

static void guest_run_each(void)
{
	enum sequence_nr nr;

	for (nr = PLAIN; nr < COUNTED; nr++) {
		clear_branches(0);
		sequences[nr].run(recording);
		expect_sequence(nr);
	}
	GUEST_DONE();
}

static void guest_entries(u64 first)
{
	unsigned int n;

	for (n = FIRST_ENTRY; n < nr_lbr_msrs(); n++)
		wrmsr(lbr_msr(n), entry_value(first, n));
	for (n = FIRST_ENTRY; n < nr_lbr_msrs(); n++)
		GUEST_ASSERT_EQ(rdmsr(lbr_msr(n)), entry_value(first, n));
}

/* Only the depth that CPUID names, which is a command to clear them all. */
static void guest_depth(void)
{
	unsigned int n;
	u64 depth;

	for (depth = 0; depth <= 64; depth++)
		GUEST_ASSERT_EQ(wrmsr_safe(MSR_ARCH_LBR_DEPTH, depth),
				depth == nr_entries() ? 0 : GP_VECTOR);
	for (n = FIRST_ENTRY; n < nr_lbr_msrs(); n++)
		GUEST_ASSERT_EQ(rdmsr(lbr_msr(n)), 0);
	GUEST_ASSERT_EQ(rdmsr(MSR_ARCH_LBR_DEPTH), nr_entries());
}

static void guest_select(void)
{
	wrmsr(MSR_AMD64_LBR_SELECT, ~0ull);
	GUEST_ASSERT_EQ(rdmsr(MSR_AMD64_LBR_SELECT), SELECT_MASK);
	wrmsr(MSR_AMD64_LBR_SELECT, BIT_ULL(9) | BIT_ULL(63));
	GUEST_ASSERT_EQ(rdmsr(MSR_AMD64_LBR_SELECT), 0);
}

static void guest_filter(void)
{
	if (host_cpu_is_intel)
		guest_depth();
	else
		guest_select();
}

static void guest_registers(void)
{
	unsigned int n;
	u64 value;

	for (n = 0; n < nr_lbr_msrs(); n++)
		GUEST_ASSERT_EQ(rdmsr(lbr_msr(n)),
				lbr_msr(n) == MSR_ARCH_LBR_DEPTH ? nr_entries() : 0);
	guest_entries(0x1000);
	guest_filter();
	for (n = 0; n < 64; n++) {
		/* Without what enables it. */
		value = BIT_ULL(n) & ~recording_of(0);
		GUEST_ASSERT_EQ(wrmsr_safe(lbr_control(), value),
				value & ~control_mask() ? GP_VECTOR : 0);
	}
	wrmsr(lbr_control(), recording_of(SELECT_MASK));
	GUEST_ASSERT_EQ(rdmsr(lbr_control()), recording_of(SELECT_MASK));
	wrmsr(lbr_control(), 0);
	/* They may pass through from now on. */
	guest_entries(0x2000);
	guest_filter();
	for (n = 0; n < 64; n++) {
		value = BIT_ULL(n) | recording_of(SELECT_MASK);
		GUEST_ASSERT_EQ(wrmsr_safe(lbr_control(), value),
				value & ~control_mask() ? GP_VECTOR : 0);
	}
	wrmsr(lbr_control(), 0);
	wrmsr(MSR_IA32_DEBUGCTLMSR, freezing_bits());
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_DEBUGCTLMSR), freezing_bits());
	wrmsr(MSR_IA32_DEBUGCTLMSR, 0);
	GUEST_DONE();
}

static void guest_filters(void)
{
	u64 select, suppressed;

	for (select = 0; select <= SELECT_MASK; select = select ? 2 * select : 1) {
		clear_branches(select);
		sequences[PLAIN].run(recording);
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
		pmu_reset();
		clear_branches(0);
		control = i ? recording : 0;
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
	sequences[PLAIN].run(recording);
	expect_sequence(PLAIN);
	GUEST_DONE();
}

static void guest_dormant(void)
{
	unsigned int i;

	clear_branches(0);
	sequences[PLAIN].run(recording);
	for (i = 0; i < NR_DORMANT; i++) {
		sequences[OVER_CPUID].run(0);
		sequences[OVER_PIO].run(0);
	}
	expect_sequence(PLAIN);
	sequences[OVER_PIO].run(recording);
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
	if (host_cpu_is_intel) {
		/* In units of 8. */
		EXPECT_EQ(BIT(nr_entries() / 8 - 1), kvm_cpu_property(X86_PROPERTY_LBR_DEPTHS));
	} else {
		EXPECT_TRUE(kvm_cpu_has(X86_FEATURE_LBR_PMC_FREEZE));
		EXPECT_EQ(nr_entries(), kvm_cpu_property(X86_PROPERTY_LBR_STACK_SIZE));
	}
}

TEST_F(guest_branches, userspace_reads_and_writes_each_register)
{
	u64 second = host_cpu_is_intel ? nr_entries() : 0;
	unsigned int n;

	for (n = 0; n < nr_lbr_msrs(); n++) {
		EXPECT_TRUE(kvm_msr_is_in_save_restore_list(lbr_msr(n)));
		EXPECT_EQ(n == 1 ? second : 0, vcpu_get_msr(self->vcpu, lbr_msr(n)));
	}
	if (!host_cpu_is_intel)
		second = SELECT_MASK;
	for (n = FIRST_ENTRY; n < nr_lbr_msrs(); n++)
		vcpu_set_msr(self->vcpu, lbr_msr(n), entry_value(0x1000, n));
	/* Restored last, it is to leave them. */
	vcpu_set_msr(self->vcpu, lbr_msr(1), second);
	vcpu_set_msr(self->vcpu, lbr_control(), control_mask());
	for (n = 0; n < 64; n++)
		if (BIT_ULL(n) & ~control_mask())
			EXPECT_EQ(0, _vcpu_set_msr(self->vcpu, lbr_control(), BIT_ULL(n)));

	for (n = FIRST_ENTRY; n < nr_lbr_msrs(); n++)
		EXPECT_EQ(entry_value(0x1000, n), vcpu_get_msr(self->vcpu, lbr_msr(n)));
	EXPECT_EQ(second, vcpu_get_msr(self->vcpu, lbr_msr(1)));
	EXPECT_EQ(control_mask(), vcpu_get_msr(self->vcpu, lbr_control()));
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

	for (i = 0; i < ARRAY_SIZE(selects); i++) {
		bool suppressed = selects[i] == IN_USER;

		vcpu_set_msr(vcpu, lbr_from(0), 0);
		vcpu_set_msr(vcpu, lbr_to(0), 0);
		if (!host_cpu_is_intel)
			vcpu_set_msr(vcpu, MSR_AMD64_LBR_SELECT, selects[i]);
		/* Userspace enables it. */
		vcpu_set_msr(vcpu, lbr_control(), recording_of(selects[i]));
		ASSERT_TRUE(run_to_io(vcpu));
		EXPECT_EQ(suppressed ? 0 : (u64)user_jmp, vcpu_get_msr(vcpu, lbr_from(0)));
		EXPECT_EQ(suppressed ? 0 : to_valid() | (u64)user_out,
			  vcpu_get_msr(vcpu, lbr_to(0)));
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

/* The CPU on which the records may be still goes offline at every other exit. */
TEST_F(guest_branches, stack_outlives_the_cpu_that_it_is_on)
{
	const char *online = "/sys/devices/system/cpu/cpu1/online";
	unsigned int exits = 0;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "there is one CPU");

	choose(self->vm, OVER_PIO);
	pin_self_to_cpu(1);
	while (run_to_io(self->vcpu)) {
		if (++exits > NR_OFFLINE)
			continue;
		if (exits % 2) {
			pin_self_to_cpu(0);
			write_to(online, "0");
		} else {
			write_to(online, "1");
			pin_self_to_cpu(1);
		}
	}
	EXPECT_EQ(ROUNDS * NR_EXITS_OF_SEQUENCE, exits);
}

TEST_F(guest_branches, stack_is_restored_in_a_new_vm)
{
	choose(self->vm, OVER_PIO);
	while (run_to_io(self->vcpu))
		migrate(&self->vcpu);
}

TEST_HARNESS_MAIN
