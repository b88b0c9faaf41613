// SPDX-License-Identifier: GPL-2.0
/*
 * The shortest proof that it works, for people and for scripts: what a guest
 * executes, what its counters say, as lines "key: value".  Exit status 0 when
 * they agree.
 */
#include <stdio.h>
#include <stdlib.h>

#include "apic.h"
#include "payload.h"

#define NR_LOOPS	1000000
#define NR_READS	10000
#define NR_PMIS		100
#define PERIOD		1000

static const struct payload loop = PAYLOAD_LOOP;

static u64 instructions, branches;
static u64 nr_reads;
static u64 nr_pmis;

static void guest_pmi(struct ex_regs *regs)
{
	nr_pmis++;
	wrmsr(vendor->global_status_clear, rdmsr(vendor->global_status));
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	x2apic_write_reg(APIC_EOI, 0);
}

static void guest_code(void)
{
	u64 i;

	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	pmc_program(1, BRANCHES, PMC_COUNT, 0);
	loop.measure(counter_bit(0) | counter_bit(1), NR_LOOPS);
	instructions = pmc_read(0) - MEASURE_INSTRUCTIONS;
	branches = pmc_read(1);
	GUEST_SYNC(0);

	/* Twice without reads: the first time touches the pages. */
	wrmsr(vendor->global_control, counter_bit(0));
	for (;;) {
		GUEST_SYNC(1);
		if (!nr_reads)
			continue;
		if (nr_reads == -1ull)
			break;
		for (i = 0; i < nr_reads; i++) {
			pmc_read(0);
			rdmsr(counter_msr(0));
		}
	}

	x2apic_enable();
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	asm volatile("sti");
	pmu_reset();
	for (i = 0; i < NR_PMIS; i++) {
		pmc_program(1, BRANCHES, PMC_COUNT | PMC_PMI, overflow_in(PERIOD));
		loop.measure(counter_bit(1), PERIOD);
	}
	GUEST_DONE();
}

static u64 exits_of_reads(struct kvm_vcpu *vcpu, u64 n)
{
	u64 before;

	nr_reads = n;
	sync_global_to_guest(vcpu->vm, nr_reads);
	before = guest_exits(vcpu);
	TEST_ASSERT(run_guest(vcpu, NULL), "The guest has to go on");
	return guest_exits(vcpu) - before;
}

static bool report(const char *what, u64 expected, u64 counted)
{
	printf("%s_expected: %lu\n%s_counted: %lu\n", what, expected, what, counted);
	return expected == counted;
}

int main(void)
{
	const char *missing = pmu_missing();
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	u64 without;
	bool ok;

	if (missing) {
		fprintf(stderr, "%s\n", missing);
		return KSFT_SKIP;
	}

	vm = pmu_vm_create(&vcpu, guest_code);
	vm_install_exception_handler(vm, PMI_VECTOR, guest_pmi);
	printf("pmu: %s\ncounters: %u\n", vendor->name, nr_counters());

	TEST_ASSERT(run_guest(vcpu, NULL), "The guest has to go on");
	sync_global_from_guest(vm, instructions);
	sync_global_from_guest(vm, branches);
	ok = report("instructions", 2 * NR_LOOPS + 1, instructions);
	ok &= report("branches", NR_LOOPS, branches);

	TEST_ASSERT(run_guest(vcpu, NULL), "The guest has to go on");
	exits_of_reads(vcpu, 1);
	without = exits_of_reads(vcpu, 0);
	/* RDPMC exits when the CPU has counters that KVM does not offer. */
	ok &= report("exits_on_pmu_reads", guest_has_all_counters() ? 0 : NR_READS,
		     exits_of_reads(vcpu, NR_READS) - without);

	nr_reads = -1ull;
	sync_global_to_guest(vm, nr_reads);
	TEST_ASSERT(!run_guest(vcpu, NULL), "The guest has to end");
	sync_global_from_guest(vm, nr_pmis);
	ok &= report("pmis", NR_PMIS, nr_pmis);

	kvm_vm_free(vm);
	return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
