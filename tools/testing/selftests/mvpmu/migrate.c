// SPDX-License-Identifier: GPL-2.0
/*
 * Not a test: a guest that counts, for who changes what its PMU comes from.
 *
 *	migrate MOVES
 *
 * runs a guest that exits to userspace all the time, with all its counters on, and
 * that often saves it, closes it, writes "saved", and restores it when there is a
 * line at standard input.  The guest's counts have to be exact.
 */
#include <stdio.h>
#include <stdlib.h>

#include "migrate.h"
#include "payload.h"

static const struct payload pio = PAYLOAD_PIO;

/* To the guest. */
static u64 nr_loops;

/* One that overflows, one that has a value, others with none; all go on from there. */
static u64 first_value(unsigned int pmc)
{
	return pmc == 0 ? overflow_in(1) : pmc;
}

static void guest_count(void)
{
	u64 enable;

	pmu_reset();
	enable = pmc_program_all(INSTRUCTIONS, first_value);
	pio.measure(enable, nr_loops);
	pmc_check_all(enable, first_value, payload_count(&pio, INSTRUCTIONS, nr_loops));
	GUEST_ASSERT_EQ(counter_bit(0), rdmsr(vendor->global_status));
	GUEST_DONE();
}

static void move(struct kvm_vcpu **vcpu, unsigned int nr, void *data)
{
	struct kvm_vm *vm = (*vcpu)->vm;
	struct saved_vcpu saved;

	save_vcpu(*vcpu, &saved);
	puts("saved");
	fflush(stdout);
	TEST_ASSERT(getchar() == '\n', "Nobody wants it restored");
	*vcpu = restore_vcpu(vm, &saved);
}

int main(int argc, char *argv[])
{
	const char *missing = pmu_missing();
	u64 moves = argc == 2 ? strtoull(argv[1], NULL, 0) : 0;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	/* Two exits in each loop. */
	TEST_ASSERT(moves && !(moves % 2), "migrate MOVES; an even number");
	TEST_ASSERT(!missing, "%s", missing);
	nr_loops = moves / 2;
	vm = pmu_vm_create(&vcpu, guest_count);
	sync_global_to_guest(vm, nr_loops);
	TEST_ASSERT(!run_guest_io(&vcpu, NULL, move, NULL), "The guest has to end");
	puts("exact");
	kvm_vm_free(vm);
	return EXIT_SUCCESS;
}
