// SPDX-License-Identifier: GPL-2.0
#include "guest_branches.h"

/* To known_branches.S. */
const u16 test_port = TEST_PORT;
const u64 test_mmio = TEST_MMIO_GVA;

static const char *const names[NR_SEQUENCES] = {
	[PLAIN]		= "without exits",
	[OVER_CPUID]	= "CPUID",
	[OVER_SELECTOR]	= "WRMSR of a selector",
	[OVER_PIO]	= "port I/O",
	[OVER_PIO_TOO]	= "other port I/O",
	[OVER_MMIO]	= "MMIO",
	[COUNTED]	= "with counters",
};

void clear_branches(u64 select)
{
	unsigned int n;

	wrmsr(MSR_AMD_DBG_EXTN_CFG, 0);
	for (n = 0; n < NR_ENTRIES; n++) {
		wrmsr(LBR_FROM(n), 0);
		wrmsr(LBR_TO(n), 0);
	}
	wrmsr(MSR_AMD64_LBR_SELECT, select);
}

static void expect_entry(const char *name, unsigned int n, u64 from, u64 to)
{
	__GUEST_ASSERT(rdmsr(LBR_FROM(n)) == from && rdmsr(LBR_TO(n)) == to,
		       "%s, entry %u: expected 0x%lx to 0x%lx, got 0x%lx to 0x%lx",
		       name, n, from, to, rdmsr(LBR_FROM(n)), rdmsr(LBR_TO(n)));
}

void expect_branches(const char *name, const struct branch *branches, unsigned int n,
		     u64 suppressed)
{
	unsigned int entry = 0;
	u64 from;

	GUEST_ASSERT_EQ(rdmsr(MSR_AMD_DBG_EXTN_CFG), 0);
	while (n-- && entry < NR_ENTRIES) {
		const struct branch *branch = &branches[n];

		if (branch->kind & suppressed)
			continue;
		from = branch->from;
		/* Of the branches in the sequences, so much can be foretold on the machines. */
		if (branch->kind & (CALL_IND | JMP_IND))
			from |= FROM_MISPREDICTED;
		expect_entry(name, entry++, from, branch->to | TO_VALID);
	}
	for (; entry < NR_ENTRIES; entry++)
		expect_entry(name, entry, 0, 0);
}

void expect_sequence(enum sequence_nr nr)
{
	expect_branches(names[nr], sequences[nr].taken, NR_TAKEN, 0);
}

const char *branches_missing(void)
{
	const char *missing = pmu_missing();

	if (host_cpu_is_intel || !kvm_cpu_has(X86_FEATURE_LBR_STACK))
		return "the CPU has no branch stack";
	return missing;
}

u32 lbr_msr(unsigned int n)
{
	switch (n) {
	case 0:
		return MSR_AMD64_LBR_SELECT;
	case 1:
		return MSR_AMD_DBG_EXTN_CFG;
	default:
		return LBR_FROM(0) + n - 2;
	}
}

bool run_to_io(struct kvm_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct ucall uc;

	vcpu_run(vcpu);
	if ((run->exit_reason == KVM_EXIT_IO && run->io.port == TEST_PORT) ||
	    (run->exit_reason == KVM_EXIT_MMIO && run->mmio.phys_addr == TEST_MMIO_GPA))
		return true;

	switch (get_ucall(vcpu, &uc)) {
	case UCALL_DONE:
		return false;
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
		break;
	default:
		TEST_FAIL("Unexpected exit %u (%s)", run->exit_reason,
			  exit_reason_str(run->exit_reason));
	}
	return false;
}

void expect_only(struct kvm_vcpu *vcpu, enum sequence_nr nr)
{
	u64 start = (u64)sequences[nr].run, end = sequences[nr].end;
	unsigned int n;
	u64 from, to;

	for (n = 0; n < NR_ENTRIES; n++) {
		from = vcpu_get_msr(vcpu, LBR_FROM(n)) & ~FROM_MISPREDICTED;
		to = vcpu_get_msr(vcpu, LBR_TO(n)) & ~TO_VALID;
		TEST_ASSERT((!from && !to) ||
			    (from >= start && from < end && to >= start && to < end),
			    "%s, entry %u: 0x%lx to 0x%lx is not in 0x%lx to 0x%lx",
			    names[nr], n, from, to, start, end);
	}
}
