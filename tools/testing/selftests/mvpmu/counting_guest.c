// SPDX-License-Identifier: GPL-2.0
/*
 * counting_guest [ROUNDS]: a guest that counts its instructions in so many rounds
 * of NR_EXITS exits by CPUID, for who looks at it from outside.  Without a number,
 * until standard input has ended; it says "ready" when the first round is over.
 * At the end it says how many exits there were, in how many rounds it counted one
 * instruction too many, and in how many its counter stood still for a while.
 *
 * One too many is the WRMSR that starts the counter, see payload.h: while a guest waits
 * for the PMU it exits, and is counted.  If the guest has the PMU from then on, the one
 * that stops the counter is counted, too.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "payload.h"

#define NR_EXITS	100

static const struct payload exits = PAYLOAD_CPUID;

static u64 nr_long, nr_short;

static void guest_count(void)
{
	u64 expected = payload_count(&exits, INSTRUCTIONS, NR_EXITS), count;

	pmu_reset();
	for (;;) {
		pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
		exits.measure(counter_bit(0), NR_EXITS);
		count = pmc_read(0);
		__GUEST_ASSERT(count <= expected + 1, "%lu counted, not %lu", count, expected);
		nr_long += count > expected;
		nr_short += count < expected;
		GUEST_SYNC(0);
	}
}

static bool input_has_ended(void)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };

	return poll(&input, 1, 0) > 0 && getchar() == EOF;
}

int main(int argc, char **argv)
{
	unsigned long rounds = argc == 2 ? strtoul(argv[1], NULL, 0) : 0, n = 0;
	const char *missing = pmu_missing();
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	TEST_ASSERT(argc == 1 || rounds, "usage: counting_guest [ROUNDS]");
	TEST_ASSERT(!missing, "%s", missing);
	vm = pmu_vm_create(&vcpu, guest_count);
	do {
		TEST_ASSERT(run_guest(vcpu, NULL), "The guest has to go on");
		if (!n++ && !rounds) {
			puts("ready");
			fflush(stdout);
		}
	} while (rounds ? n < rounds : !input_has_ended());
	sync_global_from_guest(vm, nr_long);
	sync_global_from_guest(vm, nr_short);
	printf("exits: %lu\nlong: %lu\nshort: %lu\n", n * NR_EXITS, nr_long, nr_short);
	kvm_vm_free(vm);
	return EXIT_SUCCESS;
}
