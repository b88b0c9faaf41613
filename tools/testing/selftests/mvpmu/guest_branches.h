/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The last branch record stack of AMD CPUs (LbrExtV2) in guests.
 */
#ifndef SELFTEST_MVPMU_GUEST_BRANCHES_H
#define SELFTEST_MVPMU_GUEST_BRANCHES_H

#include <asm/msr-index.h>
#include <linux/bits.h>

#define NR_ENTRIES	16
/* Entry 0 is the newest. */
#define LBR_FROM(n)	(MSR_AMD_SAMP_BR_FROM + 2 * (n))
#define LBR_TO(n)	(MSR_AMD_SAMP_BR_FROM + 2 * (n) + 1)

/* LBR_SELECT: what is suppressed. The first two go by where a branch ends. */
#define IN_KERNEL	BIT(0)
#define IN_USER		BIT(1)
#define JCC		BIT(2)
#define CALL_REL	BIT(3)
#define CALL_IND	BIT(4)
#define RET		BIT(5)
#define JMP_IND		BIT(6)
#define JMP_REL		BIT(7)
#define FAR		BIT(8)
#define SELECT_MASK	0x1ff

#ifndef __ASSEMBLER__

#include "guest_pmu.h"

#define X86_FEATURE_LBR_STACK		KVM_X86_CPU_FEATURE(0x80000022, 0, EAX, 1)
#define X86_PROPERTY_LBR_STACK_SIZE	KVM_X86_CPU_PROPERTY(0x80000022, 0, EBX, 4, 9)

#define LBRSE			DBG_EXTN_CFG_LBRV2EN
#define FROM_MISPREDICTED	BIT_ULL(63)
#define TO_VALID		BIT_ULL(63)

#define FLBRI			DEBUGCTLMSR_FREEZE_LBRS_ON_PMI
#define FPMCI			DEBUGCTLMSR_FREEZE_PERFMON_ON_PMI
/* GLOBAL_STATUS */
#define LBRSF			BIT_ULL(58)
#define PMCF			BIT_ULL(59)

/* A branch that is taken. */
struct branch {
	u64 from, to;
	u64 kind;	/* the bit of LBR_SELECT */
};

/*
 * Guest code that goes twice through the same branches, one of each kind, and
 * does something before each of them that has no branch.  It is the same
 * otherwise, but at addresses of its own.
 */
#define NR_TAKEN	17	/* more than there are entries */
#define NR_RETIRED	20	/* three are not taken */

struct sequence {
	/* Runs it with DebugExtnCtl = @control; 0 afterwards. */
	void (*run)(u64 control);
	u64 end;
	/* In order of time. */
	struct branch taken[NR_TAKEN];
};

enum sequence_nr {
	PLAIN,
	OVER_CPUID,	/* exits to KVM's fast path */
	OVER_SELECTOR,	/* the same: WRMSR of the event selector of counter 0 */
	OVER_PIO,	/* exits to userspace */
	OVER_PIO_TOO,	/* the same at other addresses */
	OVER_MMIO,	/* exits to userspace, through the emulator */
	COUNTED,	/* counters 0 and 1 are on between the first branch and the last one */
	NR_SEQUENCES,
};

extern const struct sequence sequences[NR_SEQUENCES];
/* How often OVER_PIO exits: eight times in each pass. */
#define NR_EXITS_OF_SEQUENCE	16

/*
 * Guest: one branch over and over until *@pmis is not 0, but not more than @limit times;
 * with DebugExtnCtl = @control, and counter 0 on.
 */
void wait_for_pmi(u64 control, u32 limit, unsigned int *pmis);
extern const struct branch until_pmi;

/* Guest: records a branch, single-steps over an instruction, and takes another branch. */
#define NR_SINGLE_STEPS	2

struct single_step {
	void (*run)(void);
	struct branch before;
};

extern const struct single_step single_steps[NR_SINGLE_STEPS];

/* Guest, in user mode with a port in dx: OUT, and one branch to the next one. */
extern char user_out[], user_jmp[];

/*
 * Guest: records @calls indirect calls, of one instruction that the host never
 * executes, before each of @exits exits: in turns to KVM and to userspace.
 */
void record_calls(u32 exits, u32 calls);
extern char recorded_call[], recorded_target[];

/*
 * L1 takes a branch, runs L2 and takes another branch, with DebugExtnCtl = @control; 0
 * afterwards.  L2 takes two, and exits to KVM and to userspace between them.  @seen
 * has what LBR_SELECT and the target of the oldest entry were in L2, each without the
 * upper half.
 */
void record_around_l2(u64 control, u64 vmcb, u32 *seen);
extern char l1_first[], l1_first_to[], l1_last[], l1_last_to[];
extern char l2_start[], l2_first[], l2_first_to[], l2_last[], l2_last_to[];

/* Guest: no branch is recorded from now on, there is no entry, and @select is suppressed. */
void clear_branches(u64 select);
/*
 * Guest: the stack has the last of these @n branches, in order of time, but for
 * those of @suppressed kinds, and nothing else.
 */
void expect_branches(const char *name, const struct branch *branches, unsigned int n,
		     u64 suppressed);
void expect_sequence(enum sequence_nr nr);

/* Host: the skip reason when guests have no branch stack, else NULL. */
const char *branches_missing(void);
/* Host: the registers: LBR_SELECT, DebugExtnCtl, and from and to of each entry. */
#define NR_LBR_MSRS	(2 + 2 * NR_ENTRIES)
u32 lbr_msr(unsigned int n);
/* Host: run the guest to its next access to TEST_PORT or TEST_MMIO; false: it is at its end. */
bool run_to_io(struct kvm_vcpu *vcpu);
/* Host: each of the vCPU's entries is empty, or has an address of the sequence. */
void expect_only(struct kvm_vcpu *vcpu, enum sequence_nr nr);

#endif /* !__ASSEMBLER__ */

#endif /* SELFTEST_MVPMU_GUEST_BRANCHES_H */
