// SPDX-License-Identifier: GPL-2.0
/*
 * What a guest may read and write, and what gives it #GP.
 *
 * KVM follows the vendors: Intel faults on reserved bits and on writes of
 * read-only registers, AMD drops them.  A register or counter that the guest
 * does not have faults on both.
 */
#include "harness.h"
#include "guest_pmu.h"

static void guest_write(const char *what, u32 msr, u64 value, bool faults, u64 expected)
{
	u8 vector = wrmsr_safe(msr, value);

	/* What is read has gone through an exit. */
	this_cpu_property(X86_PROPERTY_MAX_BASIC_LEAF);

	__GUEST_ASSERT(vector == (faults ? GP_VECTOR : 0),
		       "%s, WRMSR(0x%x) = 0x%lx: got %s", what, msr, value,
		       vector ? ex_str(vector) : "no fault");
	__GUEST_ASSERT(rdmsr(msr) == expected,
		       "%s, RDMSR(0x%x): expected 0x%lx, got 0x%lx", what, msr,
		       expected, rdmsr(msr));
}

static void guest_read_faults(const char *what, u32 msr)
{
	u64 value;
	u8 vector = rdmsr_safe(msr, &value);

	__GUEST_ASSERT(vector == GP_VECTOR, "%s, RDMSR(0x%x): got %s", what, msr,
		       vector ? ex_str(vector) : "no fault");
}

static void guest_no_such_msr(const char *what, u32 msr)
{
	u8 vector = wrmsr_safe(msr, 0);

	guest_read_faults(what, msr);
	__GUEST_ASSERT(vector == GP_VECTOR, "%s, WRMSR(0x%x): got %s", what, msr,
		       vector ? ex_str(vector) : "no fault");
}

static void guest_rdpmc_faults(u32 index)
{
	u64 value;
	u8 vector = rdpmc_safe(index, &value);

	__GUEST_ASSERT(vector == GP_VECTOR, "RDPMC(0x%x): got %s", index,
		       vector ? ex_str(vector) : "no fault");
}

/* Bits that neither vendor defines in a selector. */
#define SELECTOR_RESERVED	(BIT_ULL(21) | BIT_ULL(62))

static void guest_reserved_bits(void)
{
	const u64 selector = vendor->event[INSTRUCTIONS] | PMC_COUNT;
	const bool faults = vendor->reserved_bits_fault;
	u64 enable = 0;
	unsigned int pmc;

	for (pmc = 0; pmc < nr_counters(); pmc++)
		enable |= counter_bit(pmc);
	pmu_reset();

	for (pmc = 0; pmc < shape.nr_gp; pmc++)
		guest_write("selector", selector_msr(pmc), selector | SELECTOR_RESERVED,
			    faults, faults ? 0 : selector);
	if (vendor->fixed_control)
		guest_write("FIXED_CTR_CTRL", vendor->fixed_control,
			    FIXED_PMC_CTRL(shape.nr_fixed, FIXED_PMC_KERNEL), true, 0);

	/* All counters are off again before GLOBAL_CTRL is full. */
	pmu_reset();
	guest_write("GLOBAL_CTRL", vendor->global_control, enable, false, enable);
	guest_write("GLOBAL_CTRL", vendor->global_control, BIT_ULL(54), faults,
		    faults ? enable : 0);
	guest_write("GLOBAL_STATUS", vendor->global_status, counter_bit(0),
		    vendor->status_write_faults, 0);
	guest_write("clear of GLOBAL_STATUS", vendor->global_status_clear, BIT_ULL(54),
		    faults, 0);
	if (vendor->global_status_set) {
		guest_write("set of GLOBAL_STATUS", vendor->global_status_set,
			    counter_bit(1) | BIT_ULL(54), false, 0);
		GUEST_ASSERT_EQ(rdmsr(vendor->global_status), counter_bit(1));
		guest_write("clear of GLOBAL_STATUS", vendor->global_status_clear,
			    counter_bit(1), false, 0);
		GUEST_ASSERT_EQ(rdmsr(vendor->global_status), 0);
	}
	GUEST_DONE();
}

/* A counter is as wide as CPUID says: more bits fault, or are dropped. */
static void guest_counter_width(void)
{
	const bool faults = vendor->reserved_bits_fault;
	unsigned int pmc;

	pmu_reset();
	for (pmc = 0; pmc < nr_counters(); pmc++) {
		guest_write("counter", counter_msr(pmc), counter_mask(), false,
			    counter_mask());
		GUEST_ASSERT_EQ(pmc_read(pmc), counter_mask());
		guest_write("counter", counter_msr(pmc), counter_mask() + 1, faults,
			    faults ? counter_mask() : 0);
		GUEST_ASSERT_EQ(pmc_read(pmc), faults ? counter_mask() : 0);
	}
	GUEST_DONE();
}

/*
 * RDPMC's indices behind the core's counters are those of AMD's data fabric and L3,
 * which a guest with all of the core's counters may read without an exit.
 */
#define AMD_NR_CORE	6
#define AMD_NR_ALL	16

static void guest_no_such_counter(void)
{
	unsigned int pmc = shape.nr_gp;
	bool amd = !vendor->fixed_control;

	guest_rdpmc_faults(amd && pmc == AMD_NR_CORE ? AMD_NR_ALL : pmc);
	guest_rdpmc_faults(vendor->fixed_rdpmc | shape.nr_fixed | BIT(30));
	if (!shape.has_metrics)
		guest_rdpmc_faults(BIT(29));
	guest_rdpmc_faults(BIT(29) | 1);
	guest_rdpmc_faults(-1);

	guest_no_such_msr("selector", vendor->selector + pmc * vendor->stride);
	guest_no_such_msr("counter", vendor->counter + pmc * vendor->stride);
	if (vendor->fixed_control) {
		guest_no_such_msr("fixed counter", vendor->fixed_counter + shape.nr_fixed);
		if (!shape.has_metrics)
			guest_no_such_msr("PERF_METRICS", MSR_PERF_METRICS);
	}
	GUEST_DONE();
}

/* The names that AMD's first four counters have from before PERFCTR_CORE. */
static void guest_legacy_names(void)
{
	const u64 selector = vendor->event[BRANCHES] | PMC_COUNT;
	unsigned int i;

	pmu_reset();
	for (i = 0; i < 4; i++) {
		guest_write("legacy selector", MSR_K7_EVNTSEL0 + i, selector, false, selector);
		GUEST_ASSERT_EQ(rdmsr(selector_msr(i)), selector);
		guest_write("legacy counter", MSR_K7_PERFCTR0 + i, 1000 + i, false, 1000 + i);
		GUEST_ASSERT_EQ(rdmsr(counter_msr(i)), 1000 + i);
		GUEST_ASSERT_EQ(pmc_read(i), 1000 + i);
		guest_write("counter", counter_msr(i), 2000 + i, false, 2000 + i);
		GUEST_ASSERT_EQ(rdmsr(MSR_K7_PERFCTR0 + i), 2000 + i);
	}
	GUEST_DONE();
}

static void guest_no_perfmon_v2(void)
{
	guest_no_such_msr("GLOBAL_CTRL", vendor->global_control);
	guest_no_such_msr("GLOBAL_STATUS", vendor->global_status);
	guest_no_such_msr("clear of GLOBAL_STATUS", vendor->global_status_clear);
	guest_no_such_msr("set of GLOBAL_STATUS", vendor->global_status_set);
	GUEST_DONE();
}

FIXTURE(msr) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(msr) {
	unsigned int nr_gp;	/* 0: all */
};

FIXTURE_VARIANT_ADD(msr, all_counters) {
	.nr_gp = 0,
};

FIXTURE_VARIANT_ADD(msr, four_counters) {
	.nr_gp = 4,
};

FIXTURE_SETUP(msr)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create(&self->vcpu, NULL);
	if (variant->nr_gp)
		pmu_limit_counters(self->vcpu, variant->nr_gp);
}

FIXTURE_TEARDOWN(msr)
{
	kvm_vm_free(self->vm);
}

/* Seen to fail when reserved bits of a selector are kept. */
TEST_F(msr, reserved_bits_fault_on_intel_and_are_dropped_on_amd)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_reserved_bits);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* Seen to fail when a put saves the lower 32 bits of a counter only. */
TEST_F(msr, counters_are_as_wide_as_cpuid_says)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_counter_width);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/*
 * Seen to fail when RDPMC is not intercepted although the CPU has more counters
 * than the guest.
 */
TEST_F(msr, counters_that_the_guest_lacks_fault)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_no_such_counter);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* Seen to fail when a put does not save counters past the first. */
TEST_F(msr, amd_legacy_names_are_the_same_registers)
{
	if (!host_cpu_is_amd_compatible)
		SKIP(return, "AMD only");

	vcpu_arch_set_entry_point(self->vcpu, guest_legacy_names);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* Seen to fail when the global registers are passed through to every guest. */
TEST_F(msr, amd_guest_without_perfmon_v2_has_no_global_registers)
{
	if (!host_cpu_is_amd_compatible)
		SKIP(return, "AMD only");

	vcpu_clear_cpuid_feature(self->vcpu, X86_FEATURE_PERFMON_V2);
	vcpu_arch_set_entry_point(self->vcpu, guest_no_perfmon_v2);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

TEST_HARNESS_MAIN
