// SPDX-License-Identifier: GPL-2.0
/*
 * Every overflow of a counter with the interrupt bit gives one PMI, through
 * LVTPC of the guest's APIC, in every mode in which guests use it.
 *
 * PMI handlers are counted like any other code of the guest.  How long they
 * are is up to the compiler, so a reference counter, which starts at 0 and
 * does not overflow, says how much there was to count.
 */
#include "apic.h"
#include "harness.h"
#include "payload.h"

#define REFERENCE	0
#define EARLY		1000

enum apic_mode { XAPIC, X2APIC };

static enum apic_mode apic_mode;
static u32 lvtpc;

/* What the handler saw. */
static unsigned int nr_pmis;
static u64 status_seen[64];
static u64 status_left;
static u32 lvtpc_seen;

static u32 guest_apic_read(u32 reg)
{
	return apic_mode == X2APIC ? x2apic_read_reg(reg) : xapic_read_reg(reg);
}

static void guest_apic_write(u32 reg, u32 value)
{
	if (apic_mode == X2APIC)
		x2apic_write_reg(reg, value);
	else
		xapic_write_reg(reg, value);
}

/* No branch depends on data: each PMI costs the same number of instructions. */
static void guest_pmi(struct ex_regs *regs)
{
	u64 status = rdmsr(vendor->global_status);

	status_seen[nr_pmis++ % ARRAY_SIZE(status_seen)] = status;
	wrmsr(vendor->global_status_clear, status);
	status_left |= rdmsr(vendor->global_status);
	lvtpc_seen = guest_apic_read(APIC_LVTPC);
	guest_apic_write(APIC_LVTPC, lvtpc);
	guest_apic_write(APIC_EOI, 0);
}

/* An NMI has no EOI. */
static void guest_pmi_nmi(struct ex_regs *regs)
{
	u64 status = rdmsr(vendor->global_status);

	status_seen[nr_pmis++ % ARRAY_SIZE(status_seen)] = status;
	wrmsr(vendor->global_status_clear, status);
	status_left |= rdmsr(vendor->global_status);
	lvtpc_seen = guest_apic_read(APIC_LVTPC);
	guest_apic_write(APIC_LVTPC, lvtpc);
}

static void guest_apic_init(void)
{
	if (apic_mode == X2APIC)
		x2apic_enable();
	else
		xapic_enable();
	guest_apic_write(APIC_LVTPC, lvtpc);
	asm volatile("sti");
}

static void guest_start_over(void)
{
	pmu_reset();
	nr_pmis = 0;
	status_left = 0;
	lvtpc_seen = 0;
}

static void guest_assert_pmis(unsigned int expected)
{
	__GUEST_ASSERT(nr_pmis == expected, "expected %u PMIs, got %u",
		       expected, nr_pmis);
}

/* A counter that can overflow: any but the reference. */
static bool guest_pmc_can_sample(unsigned int pmc)
{
	return pmc != REFERENCE && pmc_counts(pmc, INSTRUCTIONS);
}

static void guest_one_pmi_per_overflow(void)
{
	const u64 n = EARLY;
	unsigned int pmc;

	guest_apic_init();
	for (pmc = 0; pmc < nr_counters(); pmc++) {
		if (!guest_pmc_can_sample(pmc))
			continue;

		guest_start_over();
		pmc_program(REFERENCE, INSTRUCTIONS, PMC_COUNT, 0);
		pmc_program(pmc, INSTRUCTIONS, PMC_COUNT | PMC_PMI, overflow_in(EARLY));
		measure_loop(counter_bit(REFERENCE) | counter_bit(pmc), n);

		guest_assert_pmis(1);
		GUEST_ASSERT_EQ(status_seen[0], counter_bit(pmc));
		GUEST_ASSERT_EQ(status_left, 0);
		GUEST_ASSERT_EQ(lvtpc_seen, lvtpc | (vendor->pmi_masks_lvtpc ?
						     APIC_LVT_MASKED : 0));
		GUEST_ASSERT_EQ(pmc_read(pmc), pmc_read(REFERENCE) - EARLY);
	}
	GUEST_DONE();
}

/* One counter after the other overflows; @nr_samplers of them. */
static u64 guest_total_with_pmis(unsigned int nr_samplers)
{
	u64 enable = counter_bit(REFERENCE);
	unsigned int pmc, i = 0;

	guest_start_over();
	pmc_program(REFERENCE, INSTRUCTIONS, PMC_COUNT, 0);
	for (pmc = 0; pmc < nr_counters() && i < nr_samplers; pmc++) {
		if (!guest_pmc_can_sample(pmc))
			continue;
		pmc_program(pmc, INSTRUCTIONS, PMC_COUNT | PMC_PMI,
			    overflow_in(++i * EARLY));
		enable |= counter_bit(pmc);
	}
	measure_loop(enable, (nr_samplers + 1) * EARLY);
	guest_assert_pmis(nr_samplers);
	return pmc_read(REFERENCE) - 2 * (nr_samplers + 1) * EARLY;
}

static void guest_pmis_cost_the_same(void)
{
	u64 without, handler;
	unsigned int n;

	guest_apic_init();
	without = guest_total_with_pmis(0);
	GUEST_ASSERT_EQ(without, 1 + MEASURE_INSTRUCTIONS);
	handler = guest_total_with_pmis(1) - without;
	for (n = 2; n < shape.nr_gp; n++)
		GUEST_ASSERT_EQ(guest_total_with_pmis(n), without + n * handler);
	GUEST_DONE();
}

static void guest_simultaneous_overflows(void)
{
	u64 expected = counter_bit(1) | counter_bit(2);

	guest_apic_init();
	guest_start_over();
	pmc_program(REFERENCE, INSTRUCTIONS, PMC_COUNT, 0);
	pmc_program(1, INSTRUCTIONS, PMC_COUNT | PMC_PMI, overflow_in(EARLY));
	pmc_program(2, INSTRUCTIONS, PMC_COUNT | PMC_PMI, overflow_in(EARLY));
	measure_loop(counter_bit(REFERENCE) | expected, EARLY);

	guest_assert_pmis(1);
	GUEST_ASSERT_EQ(status_seen[0], expected);
	GUEST_ASSERT_EQ(pmc_read(1), pmc_read(REFERENCE) - EARLY);
	GUEST_ASSERT_EQ(pmc_read(2), pmc_read(REFERENCE) - EARLY);
	GUEST_DONE();
}

/* A CPU delivers a PMI late: within so many instructions. The counters have stopped. */
static void pmi_has_come(void)
{
	unsigned long n = 500;

	asm volatile("1: dec %0; jnz 1b" : "+r"(n) : : "cc");
}

/*
 * The overflow falls on each instruction in turn, so also on those that the
 * CPU does not count because KVM emulates them.
 */
static const struct payload emulated[] = { PAYLOAD_CPUID, PAYLOAD_PIO, PAYLOAD_MMIO };

static void guest_overflow_everywhere(void)
{
	const u64 n = 4;
	unsigned int i;
	u64 early;

	guest_apic_init();
	for (i = 0; i < ARRAY_SIZE(emulated); i++) {
		for (early = 1; early < payload_count(&emulated[i], INSTRUCTIONS, n); early++) {
			guest_start_over();
			pmc_program(REFERENCE, INSTRUCTIONS, PMC_COUNT, 0);
			pmc_program(1, INSTRUCTIONS, PMC_COUNT | PMC_PMI, overflow_in(early));
			emulated[i].measure(counter_bit(REFERENCE) | counter_bit(1), n);
			pmi_has_come();

			__GUEST_ASSERT(nr_pmis == 1 && status_seen[0] == counter_bit(1) &&
				       pmc_read(1) == pmc_read(REFERENCE) - early,
				       "%s, overflow after %lu: %u PMIs, status 0x%lx, counter %lu, reference %lu",
				       emulated[i].name, early, nr_pmis, status_seen[0],
				       pmc_read(1), pmc_read(REFERENCE));
		}
	}
	GUEST_DONE();
}

static const struct payload loop = PAYLOAD_LOOP;

static void guest_overflow_in(const struct payload *payload, u64 early, u64 n, u64 flags)
{
	guest_start_over();
	pmc_program(1, INSTRUCTIONS, PMC_COUNT | flags, overflow_in(early));
	payload->measure(counter_bit(1), n);
	GUEST_ASSERT_EQ(rdmsr(vendor->global_status), counter_bit(1));
	GUEST_ASSERT_EQ(pmc_read(1), payload_count(payload, INSTRUCTIONS, n) - early);
	wrmsr(vendor->global_status_clear, counter_bit(1));
	GUEST_ASSERT_EQ(rdmsr(vendor->global_status), 0);
	guest_assert_pmis(0);
}

/* In hardware and in KVM. */
static void guest_overflow_without_pmi(u64 flags)
{
	u64 early;

	guest_overflow_in(&loop, EARLY, EARLY, flags);
	for (early = 1; early < payload_count(&emulated[0], INSTRUCTIONS, 2); early++)
		guest_overflow_in(&emulated[0], early, 2, flags);
}

static void guest_no_interrupt_bit(void)
{
	guest_apic_init();
	guest_overflow_without_pmi(0);
	GUEST_DONE();
}

static void guest_masked_lvtpc(void)
{
	guest_apic_init();
	guest_apic_write(APIC_LVTPC, lvtpc | APIC_LVT_MASKED);
	guest_overflow_without_pmi(PMC_PMI);
	guest_apic_write(APIC_LVTPC, lvtpc);
	guest_assert_pmis(0);
	GUEST_DONE();
}

static void guest_interrupts_off(void)
{
	guest_apic_init();
	asm volatile("cli");
	guest_start_over();
	pmc_program(1, INSTRUCTIONS, PMC_COUNT | PMC_PMI, overflow_in(EARLY));
	measure_loop(counter_bit(1), EARLY);
	guest_assert_pmis(0);
	sti_nop_cli();
	guest_assert_pmis(1);
	GUEST_ASSERT_EQ(status_seen[0], counter_bit(1));
	GUEST_DONE();
}

FIXTURE(pmi) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(pmi) {
	enum apic_mode mode;
	u32 lvtpc;
	unsigned int nr_gp;
};

FIXTURE_VARIANT_ADD(pmi, xapic) {
	.mode = XAPIC, .lvtpc = PMI_VECTOR,
};

FIXTURE_VARIANT_ADD(pmi, x2apic) {
	.mode = X2APIC, .lvtpc = PMI_VECTOR,
};

/* A guest with fewer counters than the CPU: all accesses to the status exit. */
FIXTURE_VARIANT_ADD(pmi, x2apic_with_4_counters) {
	.mode = X2APIC, .lvtpc = PMI_VECTOR, .nr_gp = 4,
};

/* As Linux guests do it. */
FIXTURE_VARIANT_ADD(pmi, nmi) {
	.mode = X2APIC, .lvtpc = APIC_DM_NMI,
};

FIXTURE_SETUP(pmi)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create(&self->vcpu, NULL);
	if (variant->nr_gp)
		pmu_limit_counters(self->vcpu, variant->nr_gp);
	map_mmio(self->vm);
	vm_install_exception_handler(self->vm, PMI_VECTOR, guest_pmi);
	vm_install_exception_handler(self->vm, NMI_VECTOR, guest_pmi_nmi);

	apic_mode = variant->mode;
	lvtpc = variant->lvtpc;
	sync_global_to_guest(self->vm, apic_mode);
	sync_global_to_guest(self->vm, lvtpc);
}

FIXTURE_TEARDOWN(pmi)
{
	kvm_vm_free(self->vm);
}

/*
 * Seen to fail when the PMI of a mediated guest is dropped, and when a put
 * does not save GLOBAL_STATUS.
 */
TEST_F(pmi, every_counter_gives_one_pmi_per_overflow)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_one_pmi_per_overflow);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* Seen to fail when a put that follows a PMI does not save the counters. */
TEST_F(pmi, every_pmi_adds_its_handler_to_the_count)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_pmis_cost_the_same);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* Seen to fail when a put saves only the lowest bit of GLOBAL_STATUS. */
TEST_F(pmi, simultaneous_overflows_share_one_pmi)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_simultaneous_overflows);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* Seen to fail when the overflow of an emulated instruction makes no PMI. */
TEST_F(pmi, overflow_in_an_emulated_instruction_gives_one_pmi)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_overflow_everywhere);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/*
 * Seen to fail when a load sets the interrupt bit in each selector, and when
 * every overflow in an emulated instruction is made a PMI.
 */
TEST_F(pmi, overflow_without_interrupt_bit_sets_the_status_only)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_no_interrupt_bit);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/*
 * Seen to fail when a PMI is delivered whether or not LVTPC is masked, and when
 * what a guest with fewer counters clears stays in hardware.
 */
TEST_F(pmi, overflow_with_masked_lvtpc_sets_the_status_only)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_masked_lvtpc);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* Seen to fail when the PMI of a mediated guest is dropped. */
TEST_F(pmi, pmi_waits_for_interrupts_to_be_enabled)
{
	if (variant->lvtpc == APIC_DM_NMI)
		SKIP(return, "an NMI does not wait");
	vcpu_arch_set_entry_point(self->vcpu, guest_interrupts_off);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

TEST_HARNESS_MAIN
