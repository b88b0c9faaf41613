// SPDX-License-Identifier: GPL-2.0
/*
 * Each counter counts its own event: for a test machine on which an instruction takes
 * more than one cycle, and reference cycles are others (weights=3:2). On a CPU
 * nobody knows how many it takes.
 */
#include "harness.h"
#include "machine.h"
#include "payload.h"

#define NR_LOOPS	1000

enum kind { OF_INSTRUCTIONS, OF_BRANCHES, OF_CYCLES, OF_REFERENCE_CYCLES, NR_KINDS };

static const u64 amd_events[] = {
	AMD_ZEN_INSTRUCTIONS_RETIRED, AMD_ZEN_BRANCHES_RETIRED, AMD_ZEN_CORE_CYCLES,
};
static const u64 intel_events[] = {
	INTEL_ARCH_INSTRUCTIONS_RETIRED, INTEL_ARCH_BRANCHES_RETIRED, INTEL_ARCH_CPU_CYCLES,
	INTEL_ARCH_REFERENCE_CYCLES,
};

/* The guest's. */
static unsigned int nr_kinds;
static u64 weight, reference_weight;

static const struct {
	struct payload payload;
	/* By KVM, which counts them as instructions: they take no cycles. */
	u64 emulated;
} payloads[] = {
	{ PAYLOAD_LOOP },
	{ PAYLOAD_PIO, .emulated = 2 },
};

static void program(unsigned int pmc, enum kind kind)
{
	const u64 *events = vendor->fixed_control ? intel_events : amd_events;

	pmc_program(pmc, INSTRUCTIONS, PMC_COUNT, 0);
	if (!pmc_is_fixed(pmc))
		wrmsr(selector_msr(pmc), events[kind] | PMC_COUNT);
}

/* What a counter counts in this round; slots are the business of another test. */
static enum kind kind_of(unsigned int pmc, unsigned int round)
{
	static const enum kind fixed[] = {
		OF_INSTRUCTIONS, OF_CYCLES, OF_REFERENCE_CYCLES, NR_KINDS,
	};

	return pmc_is_fixed(pmc) ? fixed[pmc - shape.nr_gp] : (pmc + round) % nr_kinds;
}

static u64 expected(unsigned int payload, enum kind kind)
{
	const struct payload *run = &payloads[payload].payload;
	u64 instructions = payload_count(run, INSTRUCTIONS, NR_LOOPS);
	u64 executed = instructions - payloads[payload].emulated * NR_LOOPS;

	switch (kind) {
	case OF_INSTRUCTIONS:
		return instructions;
	case OF_BRANCHES:
		return payload_count(run, BRANCHES, NR_LOOPS);
	case OF_CYCLES:
		return executed * weight;
	default:
		return executed * reference_weight;
	}
}

/* How many of @kind an instruction takes. */
static u64 measure_weight(enum kind kind)
{
	u64 instructions = payload_count(&payloads[0].payload, INSTRUCTIONS, NR_LOOPS);

	pmu_reset();
	program(0, kind);
	measure_loop(counter_bit(0), NR_LOOPS);
	GUEST_ASSERT_EQ(pmc_read(0) % instructions, 0);
	return pmc_read(0) / instructions;
}

static void guest_code(void)
{
	unsigned int payload, round, pmc;
	u64 enable;

	weight = measure_weight(OF_CYCLES);
	GUEST_ASSERT_NE(weight, 1);
	if (nr_kinds > OF_REFERENCE_CYCLES) {
		reference_weight = measure_weight(OF_REFERENCE_CYCLES);
		GUEST_ASSERT_NE(reference_weight, 1);
		GUEST_ASSERT_NE(reference_weight, weight);
	}

	for (payload = 0; payload < ARRAY_SIZE(payloads); payload++) {
		for (round = 0; round < nr_kinds; round++) {
			pmu_reset();
			for (pmc = 0, enable = 0; pmc < nr_counters(); pmc++) {
				if (kind_of(pmc, round) == NR_KINDS)
					continue;
				program(pmc, kind_of(pmc, round));
				enable |= counter_bit(pmc);
			}
			payloads[payload].payload.measure(enable, NR_LOOPS);
			for (pmc = 0; pmc < nr_counters(); pmc++)
				if (enable & counter_bit(pmc))
					GUEST_ASSERT_EQ(pmc_read(pmc),
							expected(payload, kind_of(pmc, round)));
		}
	}
	GUEST_DONE();
}

TEST(each_counter_counts_its_own_event)
{
	const char *missing = pmu_missing();
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	u64 count;

	if (missing)
		SKIP(return, "%s", missing);
	if (!machine_read(MACHINE_INSTRUCTIONS, &count))
		SKIP(return, "cycles are exact on test machines only");

	vm = pmu_vm_create(&vcpu, guest_code);
	nr_kinds = host_cpu_is_intel ? ARRAY_SIZE(intel_events) : ARRAY_SIZE(amd_events);
	sync_global_to_guest(vm, nr_kinds);
	EXPECT_FALSE(run_guest(vcpu, NULL));
	kvm_vm_free(vm);
}

TEST_HARNESS_MAIN
