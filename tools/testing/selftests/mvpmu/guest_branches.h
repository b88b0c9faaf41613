/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The last branch record stack in guests: AMD's LbrExtV2, and Intel's architectural
 * LBRs.
 */
#ifndef SELFTEST_MVPMU_GUEST_BRANCHES_H
#define SELFTEST_MVPMU_GUEST_BRANCHES_H

#include <asm/msr-index.h>
#include <linux/bits.h>

/* Kinds of branches, as in AMD's LBR_SELECT. The first two go by where a branch ends. */
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

/* There are so many entries at most. */
#define MAX_ENTRIES	32

#define X86_FEATURE_ARCH_LBR		KVM_X86_CPU_FEATURE(0x7, 0, EDX, 19)
#define X86_PROPERTY_LBR_DEPTHS		KVM_X86_CPU_PROPERTY(0x1c, 0, EAX, 0, 7)
#define X86_FEATURE_LBR_STACK		KVM_X86_CPU_FEATURE(0x80000022, 0, EAX, 1)
#define X86_PROPERTY_LBR_STACK_SIZE	KVM_X86_CPU_PROPERTY(0x80000022, 0, EBX, 4, 9)

#define LBRSE			DBG_EXTN_CFG_LBRV2EN
#define FROM_MISPREDICTED	BIT_ULL(63)
#define TO_VALID		BIT_ULL(63)

/* IA32_LBR_x_INFO */
#define INFO_MISPREDICTED	BIT_ULL(63)
#define INFO_TYPE_SHIFT		56

static inline unsigned int nr_entries(void)
{
	return host_cpu_is_intel ? 32 : 16;
}

/* Entry 0 is the newest. */
static inline u32 lbr_from(unsigned int n)
{
	return host_cpu_is_intel ? MSR_ARCH_LBR_FROM_0 + n : MSR_AMD_SAMP_BR_FROM + 2 * n;
}

static inline u32 lbr_to(unsigned int n)
{
	return host_cpu_is_intel ? MSR_ARCH_LBR_TO_0 + n : MSR_AMD_SAMP_BR_FROM + 2 * n + 1;
}

/* What has branches recorded: DebugExtnCtl, or IA32_LBR_CTL, which has the filter, too. */
static inline u32 lbr_control(void)
{
	return host_cpu_is_intel ? MSR_ARCH_LBR_CTL : MSR_AMD_DBG_EXTN_CFG;
}

static inline u64 to_valid(void)
{
	return host_cpu_is_intel ? 0 : TO_VALID;
}

/* What a guest can have frozen by a PMI, in DebugCtl: of Intel's not the counters. */
static inline u64 freezing_bits(void)
{
	return DEBUGCTLMSR_FREEZE_LBRS_ON_PMI |
	       (host_cpu_is_intel ? 0 : DEBUGCTLMSR_FREEZE_PERFMON_ON_PMI);
}

/* Its value to record all but the suppressed kinds. */
u64 recording_of(u64 suppressed);
/* Guest: the same of what clear_branches() was told. */
extern u64 recording;

#define FLBRI			DEBUGCTLMSR_FREEZE_LBRS_ON_PMI
#define FPMCI			DEBUGCTLMSR_FREEZE_PERFMON_ON_PMI
/* GLOBAL_STATUS */
#define LBRSF			BIT_ULL(58)
#define PMCF			BIT_ULL(59)

/* A branch that is taken. */
struct branch {
	u64 from, to;
	u64 kind;
};

/*
 * Guest code that goes four times through the same branches, one of each kind, and
 * does something before each of them that has no branch.  It is the same
 * otherwise, but at addresses of its own.
 */
#define NR_TAKEN	35	/* more than there are entries */
#define NR_RETIRED	40	/* five are not taken */

struct sequence {
	/* Runs it with @control in lbr_control(); 0 afterwards. */
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
#define NR_EXITS_OF_SEQUENCE	32

/*
 * Guest: one branch over and over until *@pmis is not 0, but not more than @limit times;
 * with @control in lbr_control(), and counter 0 on.
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
 * L1 takes a branch, runs L2 and takes another branch, with @control in lbr_control(); 0
 * afterwards.  L2 takes two, and exits to userspace between them, with SVM to KVM before.
 * @seen has what LBR_SELECT or IA32_LBR_CTL and the target of the oldest entry were in
 * L2, each without the upper half.  With VMX it is the current VMCS, which is clear.
 */
void record_around_svm(u64 control, u64 vmcb, u32 *seen);
void record_around_vmx(u64 control, u64 unused, u32 *seen);
extern char l1_first[], l1_first_to[], l1_last[], l1_last_to[];
extern char l1_first_vmx[], l1_first_to_vmx[], l1_last_vmx[], l1_last_to_vmx[];
extern char l2_start[], l2_first[], l2_first_to[], l2_last[], l2_last_to[];
extern char l2_start_vmx[], l2_first_vmx[], l2_first_to_vmx[], l2_last_vmx[], l2_last_to_vmx[];

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
/*
 * The registers: lbr_control(), another one (LBR_SELECT or IA32_LBR_DEPTH), and those of
 * the entries.
 */
#define FIRST_ENTRY	2
unsigned int nr_lbr_msrs(void);
u32 lbr_msr(unsigned int n);
/* Host: each of the vCPU's entries is empty, or has an address of the sequence. */
void expect_only(struct kvm_vcpu *vcpu, enum sequence_nr nr);

#endif /* !__ASSEMBLER__ */

#endif /* SELFTEST_MVPMU_GUEST_BRANCHES_H */
