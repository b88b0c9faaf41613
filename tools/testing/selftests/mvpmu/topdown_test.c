// SPDX-License-Identifier: GPL-2.0
/*
 * Slots, which fixed counter 3 counts, and PERF_METRICS, which has the shares of
 * them, a byte each: a guest that has both counts exactly, without VM exits, and
 * one that lacks either learns nothing of them.
 *
 * What they count is as on the test machine: an instruction takes four slots,
 * which are front-end bound if it is a branch, for the latency of a fetch, and
 * retire else.
 */
#include "harness.h"
#include "payload.h"

#define SLOTS			3
#define SLOTS_MSR		(MSR_CORE_PERF_FIXED_CTR0 + SLOTS)
#define SLOTS_BIT		BIT_ULL(32 + SLOTS)
#define METRICS_BIT		BIT_ULL(48)
#define RDPMC_SLOTS		(INTEL_RDPMC_FIXED | SLOTS)
#define RDPMC_METRICS		BIT(29)
#define CAP_METRICS		BIT_ULL(15)
#define SLOTS_EACH		4
#define ALL			0xffull

/* In the host and in the guest. */
static bool has_level_2;

struct counts {
	u64 instructions;
	u64 branches;
};

static void measure_nops(u64 enable)
{
	MEASURE(enable, ".rept 100\n\t"
			"nop\n\t"
			".endr");
}

static const struct counts nops = { 100 + MEASURE_INSTRUCTIONS, 0 };

#define NR_LOOPS	100
/* mov, and dec and jnz NR_LOOPS times */
static const struct counts loops = {
	1 + 2 * NR_LOOPS + MEASURE_INSTRUCTIONS, NR_LOOPS
};

static u64 slots_of(struct counts counts)
{
	return counts.instructions * SLOTS_EACH;
}

static u64 metrics_of(struct counts counts)
{
	u64 slots = slots_of(counts);
	u64 front_end = (counts.branches * SLOTS_EACH * ALL + slots / 2) / slots;

	return (ALL - front_end) | front_end << 16 |
	       (has_level_2 ? front_end << 48 : 0);
}

static struct counts sum(struct counts a, struct counts b)
{
	return (struct counts) {
		a.instructions + b.instructions, a.branches + b.branches
	};
}

static void guest_start(u64 slots)
{
	pmu_reset();
	/* In this order. */
	wrmsr(SLOTS_MSR, slots);
	wrmsr(MSR_PERF_METRICS, 0);
	wrmsr(vendor->fixed_control, FIXED_PMC_CTRL(SLOTS, FIXED_PMC_KERNEL));
}

static void guest_check(u64 slots, u64 metrics)
{
	__GUEST_ASSERT(rdpmc(RDPMC_SLOTS) == slots && rdmsr(SLOTS_MSR) == slots,
		       "expected %lu slots, RDPMC %lu, RDMSR %lu", slots,
		       rdpmc(RDPMC_SLOTS), rdmsr(SLOTS_MSR));
	__GUEST_ASSERT(rdpmc(RDPMC_METRICS) == metrics &&
		       rdmsr(MSR_PERF_METRICS) == metrics,
		       "expected metrics %lx, RDPMC %lx, RDMSR %lx", metrics,
		       rdpmc(RDPMC_METRICS), rdmsr(MSR_PERF_METRICS));
}

static void guest_count(void)
{
	const u64 enable = SLOTS_BIT | METRICS_BIT;

	guest_start(0);
	measure_nops(enable);
	guest_check(slots_of(nops), metrics_of(nops));
	GUEST_SYNC(0);
	guest_check(slots_of(nops), metrics_of(nops));
	measure_loop(enable, NR_LOOPS);
	guest_check(slots_of(sum(nops, loops)), metrics_of(sum(nops, loops)));
	GUEST_SYNC(1);
	guest_check(slots_of(sum(nops, loops)), metrics_of(sum(nops, loops)));

	/* Without their bit the metrics stand still. */
	measure_nops(SLOTS_BIT);
	guest_check(slots_of(sum(sum(nops, nops), loops)),
		    metrics_of(sum(nops, loops)));
	GUEST_DONE();
}

static void guest_overflow(void)
{
	guest_start(overflow_in(1));
	measure_nops(SLOTS_BIT | METRICS_BIT);
	GUEST_ASSERT_EQ(rdmsr(vendor->global_status), SLOTS_BIT | METRICS_BIT);
	GUEST_SYNC(0);
	GUEST_ASSERT_EQ(rdmsr(vendor->global_status), SLOTS_BIT | METRICS_BIT);
	wrmsr(vendor->global_status_clear, METRICS_BIT);
	GUEST_ASSERT_EQ(rdmsr(vendor->global_status), SLOTS_BIT);
	GUEST_DONE();
}

#define NR_ACCESSES	100

static u64 nr_accesses;

static void guest_access(void)
{
	u64 i;

	guest_start(0);
	wrmsr(vendor->global_control, SLOTS_BIT | METRICS_BIT);
	for (;;) {
		GUEST_SYNC(0);
		for (i = 0; i < nr_accesses; i++) {
			rdpmc(RDPMC_SLOTS);
			rdpmc(RDPMC_METRICS);
			rdmsr(SLOTS_MSR);
			rdmsr(MSR_PERF_METRICS);
			wrmsr(SLOTS_MSR, 0);
			wrmsr(MSR_PERF_METRICS, 0);
			wrmsr(vendor->global_control, SLOTS_BIT | METRICS_BIT);
		}
	}
}

static void guest_fault(const char *what, u8 vector)
{
	__GUEST_ASSERT(vector == GP_VECTOR, "%s: got %s", what,
		       vector ? ex_str(vector) : "no fault");
}

/* With a counter that counts, so that as much as may passes through. */
static void guest_without_metrics(void)
{
	u64 value;

	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(0));

	guest_fault("RDPMC", rdpmc_safe(RDPMC_METRICS, &value));
	guest_fault("RDMSR", rdmsr_safe(MSR_PERF_METRICS, &value));
	guest_fault("WRMSR", wrmsr_safe(MSR_PERF_METRICS, 0));
	guest_fault("PERF_GLOBAL_CTRL", wrmsr_safe(vendor->global_control, METRICS_BIT));
	guest_fault("status", wrmsr_safe(vendor->global_status_clear, METRICS_BIT));
	GUEST_DONE();
}

static void guest_without_slots(void)
{
	u64 value;

	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(0));

	guest_fault("RDPMC", rdpmc_safe(RDPMC_SLOTS, &value));
	guest_fault("RDMSR", rdmsr_safe(SLOTS_MSR, &value));
	guest_fault("WRMSR", wrmsr_safe(SLOTS_MSR, 0));
	guest_fault("FIXED_CTR_CTRL", wrmsr_safe(vendor->fixed_control,
						 FIXED_PMC_CTRL(SLOTS, FIXED_PMC_KERNEL)));
	guest_fault("PERF_GLOBAL_CTRL", wrmsr_safe(vendor->global_control, SLOTS_BIT));
	guest_without_metrics();
}

FIXTURE(topdown) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(topdown)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create(&self->vcpu, guest_count);
	if (!shape.has_metrics)
		SKIP(return, "no slots, or no metrics");

	has_level_2 = _vcpu_set_msr(self->vcpu, MSR_PERF_METRICS, ALL << 56) == 1;
	vcpu_set_msr(self->vcpu, MSR_PERF_METRICS, 0);
	sync_global_to_guest(self->vm, has_level_2);
}

FIXTURE_TEARDOWN(topdown)
{
	kvm_vm_free(self->vm);
}

TEST_F(topdown, slots_and_metrics_are_exact)
{
	EXPECT_TRUE(run_guest(self->vcpu, NULL));
	EXPECT_TRUE(run_guest(self->vcpu, NULL));
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

TEST_F(topdown, userspace_saves_and_restores_them)
{
	struct kvm_x86_state *state;
	u64 arg;

	while (run_guest(self->vcpu, &arg)) {
		struct counts counts = arg ? sum(nops, loops) : nops;

		EXPECT_EQ(vcpu_get_msr(self->vcpu, SLOTS_MSR), slots_of(counts));
		EXPECT_EQ(vcpu_get_msr(self->vcpu, MSR_PERF_METRICS), metrics_of(counts));

		state = vcpu_save_state(self->vcpu);
		kvm_vm_release(self->vm);
		self->vcpu = vm_recreate_with_one_vcpu(self->vm);
		vcpu_load_state(self->vcpu, state);
		kvm_x86_state_cleanup(state);
	}
}

TEST_F(topdown, both_overflow)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_overflow);
	EXPECT_TRUE(run_guest(self->vcpu, NULL));
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

static u64 exits_of(struct kvm_vcpu *vcpu, u64 n)
{
	u64 before;

	nr_accesses = n;
	sync_global_to_guest(vcpu->vm, nr_accesses);
	before = guest_exits(vcpu);
	TEST_ASSERT(run_guest(vcpu, NULL), "The guest never ends");
	return guest_exits(vcpu) - before;
}

TEST_F(topdown, access_does_not_exit)
{
	u64 without;

	vcpu_arch_set_entry_point(self->vcpu, guest_access);
	EXPECT_TRUE(run_guest(self->vcpu, NULL));
	/* The first time touches its pages. */
	exits_of(self->vcpu, 1);
	without = exits_of(self->vcpu, 0);
	EXPECT_EQ(without, exits_of(self->vcpu, NR_ACCESSES));
}

TEST_F(topdown, guest_without_metrics_gets_gp)
{
	u64 capabilities = vcpu_get_msr(self->vcpu, MSR_IA32_PERF_CAPABILITIES);

	vcpu_set_msr(self->vcpu, MSR_IA32_PERF_CAPABILITIES, capabilities & ~CAP_METRICS);
	vcpu_arch_set_entry_point(self->vcpu, guest_without_metrics);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

TEST_F(topdown, guest_without_slots_gets_gp)
{
	vcpu_set_cpuid_property(self->vcpu, X86_PROPERTY_PMU_NR_FIXED_COUNTERS, SLOTS);
	shape.nr_fixed = SLOTS;
	pmu_sync_to_guest(self->vm);
	vcpu_arch_set_entry_point(self->vcpu, guest_without_slots);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

static void guest_access_nothing(void)
{
	u64 value;

	GUEST_ASSERT_EQ(GP_VECTOR, rdmsr_safe(vendor->fixed_counter + 3, &value));
	GUEST_ASSERT_EQ(GP_VECTOR, rdmsr_safe(MSR_PERF_METRICS, &value));
	GUEST_DONE();
}

/* KVM emulates neither, also while mvpmu gives them to other VMs. */
TEST_F(topdown, emulated_pmu_has_none)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	vm = pmu_vm_create_with(&vcpu, guest_access_nothing, KVM_PMU_CAP_EMULATED);
	EXPECT_FALSE(run_guest(vcpu, NULL));
	kvm_vm_free(vm);
}

TEST_HARNESS_MAIN
