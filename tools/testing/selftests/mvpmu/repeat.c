// SPDX-License-Identifier: GPL-2.0
/*
 * Not a test: whether a guest counts the same each time.
 *
 *	repeat TIMES
 *
 * counts code of known length that often, and writes for each event how far the
 * counts were from what is right, and how often: "CODE: EVENT EXPECTED DIFFERENCE
 * TIMES" lines.  CPUs have errata by which they count an instruction twice, or not
 * at all; the test machines have none.
 */
#include <stdlib.h>

#include "payload.h"

static const struct {
	struct payload payload;
	u64 iterations;
} codes[] = {
	{ PAYLOAD_LOOP, 1000 },
	/* Long enough for interrupts of the host. */
	{ PAYLOAD_LOOP, 1000000 },
	{ PAYLOAD_CPUID, 100 },
	{ PAYLOAD_PIO, 100 },
};

static const char * const events[NR_PMU_EVENTS] = { "instructions", "branches" };

/* To the guest. */
static unsigned int code;
static enum pmu_event event;

static void guest(void)
{
	for (;;) {
		pmu_reset();
		pmc_program(0, event, PMC_COUNT, 0);
		codes[code].payload.measure(counter_bit(0), codes[code].iterations);
		GUEST_SYNC(pmc_read(0));
	}
}

static int compare(const void *a, const void *b)
{
	s64 x = *(const s64 *)a, y = *(const s64 *)b;

	return x < y ? -1 : x > y;
}

static void repeat(struct kvm_vcpu *vcpu, s64 *differences, u64 times)
{
	u64 expected = payload_count(&codes[code].payload, event, codes[code].iterations);
	u64 i, same, counted;

	sync_global_to_guest(vcpu->vm, code);
	sync_global_to_guest(vcpu->vm, event);
	for (i = 0; i < times; i++) {
		TEST_ASSERT(run_guest(vcpu, &counted), "The guest has to go on");
		differences[i] = counted - expected;
	}
	qsort(differences, times, sizeof(*differences), compare);
	for (i = 0; i < times; i += same) {
		for (same = 1; i + same < times && differences[i + same] == differences[i]; same++)
			;
		printf("%s %lu times: %s %lu %ld %lu\n", codes[code].payload.name,
		       codes[code].iterations, events[event], expected, differences[i], same);
	}
}

int main(int argc, char *argv[])
{
	const char *missing = pmu_missing();
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	s64 *differences;
	u64 times;

	TEST_ASSERT(argc == 2, "repeat TIMES");
	if (missing) {
		fprintf(stderr, "%s\n", missing);
		return KSFT_SKIP;
	}

	times = strtoull(argv[1], NULL, 0);
	differences = calloc(times, sizeof(*differences));
	TEST_ASSERT(differences, "No memory for %s differences", argv[1]);
	pin_self_to_cpu(0);
	vm = pmu_vm_create(&vcpu, guest);
	for (code = 0; code < ARRAY_SIZE(codes); code++)
		for (event = 0; event < NR_PMU_EVENTS; event++)
			repeat(vcpu, differences, times);
	kvm_vm_free(vm);
	free(differences);
	return 0;
}
