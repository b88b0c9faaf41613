// SPDX-License-Identifier: GPL-2.0
#include "guest_branches.h"

/* To known_branches.S. */
const u16 test_port = TEST_PORT;
const u64 test_mmio = TEST_MMIO_GVA;
u32 recording_msr, selector_msr_0, selector_value, global_control_msr;
u64 recording;

static const char *const names[NR_SEQUENCES] = {
	[PLAIN]		= "without exits",
	[OVER_CPUID]	= "CPUID",
	[OVER_SELECTOR]	= "WRMSR of a selector",
	[OVER_PIO]	= "port I/O",
	[OVER_PIO_TOO]	= "other port I/O",
	[OVER_MMIO]	= "MMIO",
	[COUNTED]	= "with counters",
};

/* What Intel calls each kind, in IA32_LBR_CTL and in the type of INFO. */
static const struct {
	u64 control;
	u64 type;
} intel_kinds[] = {
	[2] = { BIT_ULL(16), 0 },	/* JCC */
	[3] = { BIT_ULL(19), 4 },	/* CALL_REL */
	[4] = { BIT_ULL(20), 3 },	/* CALL_IND */
	[5] = { BIT_ULL(21), 5 },	/* RET */
	[6] = { BIT_ULL(18), 1 },	/* JMP_IND */
	[7] = { BIT_ULL(17), 2 },	/* JMP_REL */
	[8] = { BIT_ULL(22), 8 },	/* FAR */
};

u64 recording_of(u64 suppressed)
{
	u64 control = ARCH_LBR_CTL_LBREN;
	unsigned int kind;

	if (!host_cpu_is_intel)
		return LBRSE;

	if (!(suppressed & IN_KERNEL))
		control |= BIT_ULL(1);
	if (!(suppressed & IN_USER))
		control |= BIT_ULL(2);
	for (kind = 2; kind < ARRAY_SIZE(intel_kinds); kind++)
		if (!(suppressed & BIT_ULL(kind)))
			control |= intel_kinds[kind].control;
	return control;
}

void clear_branches(u64 select)
{
	unsigned int n;

	recording = recording_of(select);
	recording_msr = lbr_control();
	selector_msr_0 = selector_msr(0);
	selector_value = vendor->event[BRANCHES] | PMC_COUNT;
	global_control_msr = vendor->global_control;

	wrmsr(lbr_control(), 0);
	if (host_cpu_is_intel) {
		wrmsr(MSR_ARCH_LBR_DEPTH, nr_entries());
		return;
	}
	for (n = 0; n < nr_entries(); n++) {
		wrmsr(lbr_from(n), 0);
		wrmsr(lbr_to(n), 0);
	}
	wrmsr(MSR_AMD64_LBR_SELECT, select);
}

static void expect_entry(const char *name, unsigned int n, u64 from, u64 to, u64 info)
{
	u64 info_seen = host_cpu_is_intel ? rdmsr(MSR_ARCH_LBR_INFO_0 + n) : 0;

	__GUEST_ASSERT(rdmsr(lbr_from(n)) == from && rdmsr(lbr_to(n)) == to &&
		       info_seen == info,
		       "%s, entry %u: expected 0x%lx to 0x%lx (0x%lx), got 0x%lx to 0x%lx (0x%lx)",
		       name, n, from, to, info, rdmsr(lbr_from(n)), rdmsr(lbr_to(n)),
		       info_seen);
}

static void expect_branch(const char *name, unsigned int n, const struct branch *branch)
{
	/* Of the branches in the sequences, so much can be foretold on the machines. */
	bool mispredicted = branch->kind & (CALL_IND | JMP_IND);
	unsigned int kind = __builtin_ctzll(branch->kind);

	if (host_cpu_is_intel)
		expect_entry(name, n, branch->from, branch->to,
			     (mispredicted ? INFO_MISPREDICTED : 0) |
			     intel_kinds[kind].type << INFO_TYPE_SHIFT);
	else
		expect_entry(name, n,
			     branch->from | (mispredicted ? FROM_MISPREDICTED : 0),
			     branch->to | TO_VALID, 0);
}

void expect_branches(const char *name, const struct branch *branches, unsigned int n,
		     u64 suppressed)
{
	unsigned int entry = 0;

	GUEST_ASSERT_EQ(rdmsr(lbr_control()), 0);
	while (n-- && entry < nr_entries()) {
		if (!(branches[n].kind & suppressed))
			expect_branch(name, entry++, &branches[n]);
	}
	for (; entry < nr_entries(); entry++)
		expect_entry(name, entry, 0, 0, 0);
}

void expect_sequence(enum sequence_nr nr)
{
	expect_branches(names[nr], sequences[nr].taken, NR_TAKEN, 0);
}

const char *branches_missing(void)
{
	const char *missing = pmu_missing();

	if (!kvm_cpu_has(host_cpu_is_intel ? X86_FEATURE_ARCH_LBR : X86_FEATURE_LBR_STACK))
		return "the CPU has no branch stack";
	return missing;
}

unsigned int nr_lbr_msrs(void)
{
	return FIRST_ENTRY + nr_entries() * (host_cpu_is_intel ? 3 : 2);
}

u32 lbr_msr(unsigned int n)
{
	switch (n) {
	case 0:
		return lbr_control();
	case 1:
		return host_cpu_is_intel ? MSR_ARCH_LBR_DEPTH : MSR_AMD64_LBR_SELECT;
	default:
		n -= FIRST_ENTRY;
	}
	if (!host_cpu_is_intel)
		return MSR_AMD_SAMP_BR_FROM + n;
	if (n < nr_entries())
		return MSR_ARCH_LBR_FROM_0 + n;
	if (n < 2 * nr_entries())
		return MSR_ARCH_LBR_TO_0 + n - nr_entries();
	return MSR_ARCH_LBR_INFO_0 + n - 2 * nr_entries();
}

void expect_only(struct kvm_vcpu *vcpu, enum sequence_nr nr)
{
	u64 start = (u64)sequences[nr].run, end = sequences[nr].end;
	unsigned int n;
	u64 from, to;

	for (n = 0; n < nr_entries(); n++) {
		from = vcpu_get_msr(vcpu, lbr_from(n)) & ~FROM_MISPREDICTED;
		to = vcpu_get_msr(vcpu, lbr_to(n)) & ~TO_VALID;
		TEST_ASSERT((!from && !to) ||
			    (from >= start && from < end && to >= start && to < end),
			    "%s, entry %u: 0x%lx to 0x%lx is not in 0x%lx to 0x%lx",
			    names[nr], n, from, to, start, end);
	}
}
