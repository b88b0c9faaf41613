// SPDX-License-Identifier: GPL-2.0
/*
 * A counter counts every instruction and every branch of the guest, and
 * nothing else, whatever interrupts the guest.
 */
#include "harness.h"
#include "payload.h"

enum { LOOP, CPUID_EXITS, PIO_EXITS, MMIO_EXITS };

static const struct payload payloads[] = {
	[LOOP]		= PAYLOAD_LOOP,
	[CPUID_EXITS]	= PAYLOAD_CPUID,
	[PIO_EXITS]	= PAYLOAD_PIO,
	[MMIO_EXITS]	= PAYLOAD_MMIO,
};

static const struct payload *payload;
static u64 iterations;

static void guest_check(unsigned int pmc, u64 expected)
{
	u64 by_rdpmc = pmc_read(pmc), by_rdmsr = rdmsr(counter_msr(pmc));

	__GUEST_ASSERT(by_rdpmc == expected && by_rdmsr == expected,
		       "%s, counter %u: expected %lu, RDPMC %lu, RDMSR %lu",
		       payload->name, pmc, expected, by_rdpmc, by_rdmsr);
}

static void guest_each_alone(void)
{
	unsigned int pmc, other;
	enum pmu_event event;

	for (pmc = 0; pmc < nr_counters(); pmc++) {
		for (event = 0; event < NR_PMU_EVENTS; event++) {
			if (!pmc_counts(pmc, event))
				continue;

			pmu_reset();
			pmc_program(pmc, event, PMC_COUNT, 0);
			payload->measure(counter_bit(pmc), iterations);

			for (other = 0; other < nr_counters(); other++)
				guest_check(other, other != pmc ? 0 :
					    payload_count(payload, event, iterations));
		}
	}
	GUEST_DONE();
}

/* Every second counter counts branches, then the others do. */
static enum pmu_event event_of(unsigned int pmc, unsigned int round)
{
	return pmc_counts(pmc, BRANCHES) ? (pmc + round) % 2 : INSTRUCTIONS;
}

static void guest_all_at_once(void)
{
	unsigned int pmc, round;
	u64 enable;

	for (round = 0; round < 2; round++) {
		pmu_reset();
		for (pmc = 0, enable = 0; pmc < nr_counters(); pmc++) {
			if (!pmc_counts(pmc, event_of(pmc, round)))
				continue;
			pmc_program(pmc, event_of(pmc, round), PMC_COUNT, 0);
			enable |= counter_bit(pmc);
		}
		payload->measure(enable, iterations);

		for (pmc = 0; pmc < nr_counters(); pmc++)
			if (enable & counter_bit(pmc))
				guest_check(pmc, payload_count(payload, event_of(pmc, round),
							       iterations));
	}
	GUEST_DONE();
}

FIXTURE(count) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(count) {
	unsigned int payload;
	u64 iterations;
	unsigned int nr_gp;	/* 0: all */
};

FIXTURE_VARIANT_ADD(count, loop) {
	.payload = LOOP, .iterations = 1000000,
};

FIXTURE_VARIANT_ADD(count, cpuid_exits) {
	.payload = CPUID_EXITS, .iterations = 100,
};

FIXTURE_VARIANT_ADD(count, port_io_exits) {
	.payload = PIO_EXITS, .iterations = 100,
};

FIXTURE_VARIANT_ADD(count, mmio_exits) {
	.payload = MMIO_EXITS, .iterations = 100,
};

/* A guest with fewer counters than the CPU: RDPMC and GLOBAL_CTRL exit. */
FIXTURE_VARIANT_ADD(count, cpuid_exits_with_4_counters) {
	.payload = CPUID_EXITS, .iterations = 100, .nr_gp = 4,
};

FIXTURE_SETUP(count)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create(&self->vcpu, NULL);
	if (variant->nr_gp)
		pmu_limit_counters(self->vcpu, variant->nr_gp);
	map_mmio(self->vm);

	payload = &payloads[variant->payload];
	iterations = variant->iterations;
	sync_global_to_guest(self->vm, payload);
	sync_global_to_guest(self->vm, iterations);
}

FIXTURE_TEARDOWN(count)
{
	kvm_vm_free(self->vm);
}

/*
 * Seen to fail when a load writes the values of all counters but the last, and
 * when an emulated instruction is not counted.
 */
TEST_F(count, each_counter_alone_is_exact)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_each_alone);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/*
 * Seen to fail when a put does not save counters past the first, and when an
 * emulated instruction is counted by the lowest counter only.
 */
TEST_F(count, all_counters_at_once_are_exact)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_all_at_once);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

FIXTURE(preempted_count) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(preempted_count)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create(&self->vcpu, guest_all_at_once);

	payload = &payloads[LOOP];
	iterations = 50000000;
	sync_global_to_guest(self->vm, payload);
	sync_global_to_guest(self->vm, iterations);
}

FIXTURE_TEARDOWN(preempted_count)
{
	kvm_vm_free(self->vm);
}

/*
 * 100000001 instructions, in the middle of which the host takes timer
 * interrupts.  Seen to fail when a put that follows an interrupt does not save
 * the counters.
 */
TEST_F(preempted_count, is_exact_over_host_timer_interrupts)
{
	u64 interrupts = vcpu_get_stat(self->vcpu, irq_exits);

	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	EXPECT_NE(interrupts, vcpu_get_stat(self->vcpu, irq_exits));
}

TEST_HARNESS_MAIN
