// SPDX-License-Identifier: GPL-2.0
/*
 * many N: creates N VMs, one after the other; the guest of each counts, exactly.
 */
#include <stdlib.h>

#include "payload.h"

#define ITERATIONS	1000

static void guest_count(void)
{
	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	measure_loop(counter_bit(0), ITERATIONS);
	GUEST_ASSERT_EQ(1 + 2 * ITERATIONS + MEASURE_INSTRUCTIONS, pmc_read(0));
	GUEST_DONE();
}

int main(int argc, char **argv)
{
	unsigned long n = argc == 2 ? strtoul(argv[1], NULL, 0) : 0;
	const char *missing = pmu_missing();
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	TEST_ASSERT(n, "usage: many N");
	TEST_ASSERT(!missing, "%s", missing);
	while (n--) {
		vm = pmu_vm_create(&vcpu, guest_count);
		TEST_ASSERT(!run_guest(vcpu, NULL), "The guest has to end");
		kvm_vm_free(vm);
	}
	return EXIT_SUCCESS;
}
