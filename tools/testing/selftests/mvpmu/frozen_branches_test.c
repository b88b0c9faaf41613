// SPDX-License-Identifier: GPL-2.0
/*
 * What stops the recording of branches in a guest: a PMI, when the guest has asked
 * for it, and a debug exception.  Nothing of its handler is on the stack.
 */
#include "apic.h"
#include "guest_branches.h"
#include "harness.h"
#include "migrate.h"
#include "payload.h"

#define PMI_LIMIT	1000000	/* branches until it has come */
#define PMI_AFTER	1000

/* To the guest: DebugCtl, and whether it records. */
static u64 freeze;
static bool records;

static unsigned int nr_pmis;
static u64 status_seen;
static u64 count_seen, newest_seen;

/* Leaves all frozen. */
static void guest_pmi(struct ex_regs *regs)
{
	count_seen = pmc_read(0);
	newest_seen = rdmsr(lbr_to(0));
	nr_pmis++;
	status_seen = rdmsr(vendor->global_status);
	wrmsr(vendor->global_status_clear, counter_bit(0));
	if (vendor->pmi_masks_lvtpc)
		x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	x2apic_write_reg(APIC_EOI, 0);
}

static void guest_freeze(void)
{
	u64 frozen = (freeze & FLBRI ? LBRSF : 0) | (freeze & FPMCI ? PMCF : 0);
	unsigned int n, nr_loops = records ? nr_entries() : 0;
	struct branch loops[MAX_ENTRIES];

	for (n = 0; n < MAX_ENTRIES; n++)
		loops[n] = until_pmi;
	x2apic_enable();
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	asm volatile("sti");

	pmu_reset();
	clear_branches(0);
	wrmsr(MSR_IA32_DEBUGCTLMSR, freeze);
	pmc_program(0, BRANCHES, PMC_COUNT | PMC_PMI, overflow_in(PMI_AFTER));
	wait_for_pmi(records ? recording : 0, PMI_LIMIT, &nr_pmis);

	GUEST_ASSERT_EQ(nr_pmis, 1);
	GUEST_ASSERT_EQ(status_seen, frozen | counter_bit(0));
	GUEST_ASSERT_EQ(rdmsr(vendor->global_status), frozen);
	/* The handler has branches. */
	if (freeze & FPMCI)
		GUEST_ASSERT_EQ(pmc_read(0), count_seen);
	else
		GUEST_ASSERT_NE(pmc_read(0), count_seen);
	expect_branches("frozen", loops, nr_loops, 0);
	sequences[OVER_PIO].run(recording);
	GUEST_ASSERT_EQ(rdmsr(vendor->global_status), frozen);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_DEBUGCTLMSR), freeze);
	expect_branches("still frozen", loops, nr_loops, 0);

	wrmsr(vendor->global_status_clear, frozen);
	GUEST_ASSERT_EQ(rdmsr(vendor->global_status), 0);
	sequences[OVER_PIO].run(recording);
	expect_sequence(OVER_PIO);
	GUEST_DONE();
}

FIXTURE(freezing) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(freezing) {
	u64 debugctl;
	bool records;
	bool migrates;
};

FIXTURE_VARIANT_ADD(freezing, stack) {
	.debugctl = FLBRI, .records = true,
};

FIXTURE_VARIANT_ADD(freezing, stack_and_counters) {
	.debugctl = FLBRI | FPMCI, .records = true,
};

/* SVM does not switch DebugCtl then. */
FIXTURE_VARIANT_ADD(freezing, without_recording) {
	.debugctl = FLBRI | FPMCI, .records = false,
};

FIXTURE_VARIANT_ADD(freezing, over_migration) {
	.debugctl = FLBRI | FPMCI, .records = true, .migrates = true,
};

FIXTURE_SETUP(freezing)
{
	const char *missing = branches_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create(&self->vcpu, guest_freeze);
	vm_install_exception_handler(self->vm, PMI_VECTOR, guest_pmi);
	freeze = variant->debugctl & freezing_bits();
	records = variant->records;
	sync_global_to_guest(self->vm, freeze);
	sync_global_to_guest(self->vm, records);
}

FIXTURE_TEARDOWN(freezing)
{
	kvm_vm_free(self->vm);
}

TEST_F(freezing, pmi_freezes_what_the_guest_wants)
{
	while (run_to_io(self->vcpu))
		if (variant->migrates)
			migrate(&self->vcpu);
}

static const struct payload emulated[] = { PAYLOAD_CPUID, PAYLOAD_PIO, PAYLOAD_MMIO };

/*
 * The overflow falls on each instruction in turn, so also on those that KVM
 * emulates.  None of them is counted after it.
 */
static void guest_freeze_everywhere(void)
{
	const u64 n = 4, frozen = LBRSF | (freezing_bits() & FPMCI ? PMCF : 0);
	unsigned int i;
	u64 early;

	x2apic_enable();
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	asm volatile("sti");
	wrmsr(MSR_IA32_DEBUGCTLMSR, freezing_bits());
	clear_branches(0);

	for (i = 0; i < ARRAY_SIZE(emulated); i++) {
		for (early = 1; early < payload_count(&emulated[i], INSTRUCTIONS, n); early++) {
			pmu_reset();
			nr_pmis = 0;
			pmc_program(0, INSTRUCTIONS, PMC_COUNT | PMC_PMI, overflow_in(early));
			pmc_program(1, INSTRUCTIONS, PMC_COUNT, 0);
			wrmsr(lbr_control(), records ? recording : 0);
			emulated[i].measure(counter_bit(0) | counter_bit(1), n);

			__GUEST_ASSERT(nr_pmis == 1 && status_seen == (frozen | counter_bit(0)) &&
				       (!(frozen & PMCF) || pmc_read(0) == count_seen) &&
				       pmc_read(1) == pmc_read(0) + early &&
				       rdmsr(lbr_to(0)) == newest_seen,
				       "%s, overflow after %lu: %u PMIs, status 0x%lx, counters %lu (was %lu) and %lu, 0x%lx was 0x%lx",
				       emulated[i].name, early, nr_pmis, status_seen, pmc_read(0),
				       count_seen, pmc_read(1), rdmsr(lbr_to(0)), newest_seen);
			wrmsr(lbr_control(), 0);
			wrmsr(vendor->global_status_clear, frozen);
		}
	}
	GUEST_DONE();
}

FIXTURE(emulating) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(emulating) {
	bool records;
};

FIXTURE_VARIANT_ADD(emulating, recording) { .records = true, };
FIXTURE_VARIANT_ADD(emulating, not_recording) { .records = false, };

FIXTURE_SETUP(emulating)
{
	const char *missing = branches_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create(&self->vcpu, guest_freeze_everywhere);
	map_mmio(self->vm);
	vm_install_exception_handler(self->vm, PMI_VECTOR, guest_pmi);
	records = variant->records;
	sync_global_to_guest(self->vm, records);
}

FIXTURE_TEARDOWN(emulating)
{
	kvm_vm_free(self->vm);
}

TEST_F(emulating, pmi_freezes_at_each_instruction)
{
	while (run_to_io(self->vcpu))
		;
}

static unsigned int nr_debug;
static u64 control_seen;

static void guest_debug_exception(struct ex_regs *regs)
{
	nr_debug++;
	control_seen = rdmsr(lbr_control());
	/* With what else there is. */
	wrmsr(lbr_control(), 0);
	regs->rflags &= ~X86_EFLAGS_TF;
}

static void guest_debug(void)
{
	unsigned int i;

	for (i = 0; i < NR_SINGLE_STEPS; i++) {
		nr_debug = 0;
		clear_branches(0);
		single_steps[i].run();
		GUEST_ASSERT_EQ(nr_debug, 1);
		GUEST_ASSERT_EQ(control_seen, recording & ~(LBRSE | ARCH_LBR_CTL_LBREN));
		/* Nor is anything recorded after it. */
		expect_branches("debug exception", &single_steps[i].before, 1, 0);
		sequences[PLAIN].run(recording);
		expect_sequence(PLAIN);
	}
	GUEST_DONE();
}

FIXTURE(debugging) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(debugging)
{
	const char *missing = branches_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create(&self->vcpu, guest_debug);
	vm_install_exception_handler(self->vm, DB_VECTOR, guest_debug_exception);
}

FIXTURE_TEARDOWN(debugging)
{
	kvm_vm_free(self->vm);
}

TEST_F(debugging, debug_exception_disables_recording)
{
	EXPECT_FALSE(run_to_io(self->vcpu));
}

TEST_HARNESS_MAIN
