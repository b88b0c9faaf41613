// SPDX-License-Identifier: GPL-2.0
/*
 * Userspace reads and writes the PMU of a vCPU with KVM_GET_MSRS and
 * KVM_SET_MSRS, in the middle of a measurement: that is what saving, restoring
 * and live migration do.
 */
#include "harness.h"
#include "payload.h"

#define NR_LOOPS	20
#define NR_EXITS	(2 * NR_LOOPS)

static const struct payload pio = PAYLOAD_PIO;

/* What userspace adds to each counter by writing it. */
static u64 added;

/*
 * All counters count instructions, each from a value of its own; the last
 * general purpose one overflows at once.
 */
static u64 first_value(unsigned int pmc)
{
	return pmc == shape.nr_gp - 1 ? overflow_in(1) : pmc;
}

static void guest_measure(void)
{
	u64 enable;

	pmu_reset();
	enable = pmc_program_all(INSTRUCTIONS, first_value);
	pio.measure(enable, NR_LOOPS);
	pmc_check_all(enable, first_value, payload_count(&pio, INSTRUCTIONS, NR_LOOPS) + added);
	GUEST_ASSERT_EQ(rdmsr(vendor->global_status), counter_bit(shape.nr_gp - 1));
	GUEST_ASSERT_EQ(rdmsr(vendor->global_control), 0);
	GUEST_DONE();
}

FIXTURE(state) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(state)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create(&self->vcpu, guest_measure);
}

FIXTURE_TEARDOWN(state)
{
	kvm_vm_free(self->vm);
}

/*
 * Instructions complete at exit @nr: the one that exits is not among them.
 * Where the WRMSR that starts the counters exits, it is complete, and counted,
 * when they run; the one that stops them then is not.
 */
static u64 count_at_exit(unsigned int nr)
{
	return pio.once[INSTRUCTIONS] + nr / 2 * pio.each[INSTRUCTIONS] + nr % 2 +
	       (guest_has_all_counters() ? 0 : 1);
}

static void read_counters(struct kvm_vcpu **vcpu, unsigned int nr, void *data)
{
	unsigned int pmc;

	for (pmc = 0; pmc < nr_counters(); pmc++)
		if (pmc_counts(pmc, INSTRUCTIONS))
			TEST_ASSERT_EQ(vcpu_get_msr(*vcpu, counter_msr(pmc)),
				       (first_value(pmc) + count_at_exit(nr)) & counter_mask());

	TEST_ASSERT_EQ(vcpu_get_msr(*vcpu, selector_msr(0)),
		       vendor->event[INSTRUCTIONS] | PMC_COUNT);
	TEST_ASSERT_EQ(vcpu_get_msr(*vcpu, vendor->global_status),
		       counter_bit(shape.nr_gp - 1));
}

/* Seen to fail when a put leaves KVM with the value of an earlier one. */
TEST_F(state, userspace_reads_exact_counts_and_does_not_disturb_them)
{
	EXPECT_FALSE(run_guest_io(&self->vcpu, NULL, read_counters, NULL));
}

#define ADDED_ONCE	1000

static void add_to_counters(struct kvm_vcpu **vcpu, unsigned int nr, void *data)
{
	unsigned int pmc;
	u64 value;

	for (pmc = 0; pmc < nr_counters(); pmc++) {
		if (!pmc_counts(pmc, INSTRUCTIONS))
			continue;
		value = vcpu_get_msr(*vcpu, counter_msr(pmc));
		vcpu_set_msr(*vcpu, counter_msr(pmc), value + ADDED_ONCE);
	}
}

/* Seen to fail when a load writes what the last put has read. */
TEST_F(state, guest_goes_on_from_the_value_that_userspace_writes)
{
	added = NR_EXITS * ADDED_ONCE;
	sync_global_to_guest(self->vm, added);
	EXPECT_FALSE(run_guest_io(&self->vcpu, NULL, add_to_counters, NULL));
}

static void move_to_a_new_vm(struct kvm_vcpu **vcpu, unsigned int nr, void *data)
{
	struct kvm_vm *vm = (*vcpu)->vm;
	struct kvm_x86_state *state;

	if (nr % 8 != 3)
		return;

	state = vcpu_save_state(*vcpu);
	kvm_vm_release(vm);
	*vcpu = vm_recreate_with_one_vcpu(vm);
	vcpu_load_state(*vcpu, state);
	kvm_x86_state_cleanup(state);
}

/* Seen to fail when selectors that userspace writes do not reach the hardware. */
TEST_F(state, guest_is_moved_to_a_new_vm_and_goes_on_counting)
{
	EXPECT_FALSE(run_guest_io(&self->vcpu, NULL, move_to_a_new_vm, NULL));
}

TEST_HARNESS_MAIN
