/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The PMU as a guest sees it, for AMD PerfMonV2 and Intel's architectural PMU.
 *
 * A test speaks of counters 0 .. nr_counters() - 1: first the general purpose
 * counters, then the fixed ones.  Everything in which the vendors differ is in
 * the table of guest_pmu.c.
 */
#ifndef SELFTEST_MVPMU_GUEST_PMU_H
#define SELFTEST_MVPMU_GUEST_PMU_H

#include <stdbool.h>

#include "kvm_util.h"
#include "pmu.h"
#include "processor.h"

enum pmu_event {
	INSTRUCTIONS,
	BRANCHES,
	NR_PMU_EVENTS,
};

struct pmu_vendor {
	const char *name;

	u32 selector;
	u32 counter;
	u32 stride;

	u32 fixed_control;	/* 0: no fixed counters */
	u32 fixed_counter;
	u32 fixed_rdpmc;

	u32 global_control;
	u32 global_status;
	u32 global_status_clear;
	u32 global_status_set;	/* 0: not for guests */

	u64 event[NR_PMU_EVENTS];

	/* WRMSR with a reserved bit set: #GP, or the bit is dropped. */
	bool reserved_bits_fault;
	/* WRMSR to the read-only GLOBAL_STATUS: #GP, or ignored. */
	bool status_write_faults;
	/* The APIC masks LVTPC when it delivers a PMI. */
	bool pmi_masks_lvtpc;
};

/* What one guest has of it; the default is all that KVM offers. */
struct pmu_shape {
	u32 nr_gp;
	u32 nr_fixed;
	u32 width;
	bool has_metrics;	/* PERF_METRICS */
};

/* In the host and, after pmu_sync_to_guest(), in the guest. */
extern const struct pmu_vendor *vendor;
extern struct pmu_shape shape;

/* Bits of the @flags of pmc_program(), as in an event selector. */
#define PMC_USR		ARCH_PERFMON_EVENTSEL_USR
#define PMC_OS		ARCH_PERFMON_EVENTSEL_OS
#define PMC_PMI		ARCH_PERFMON_EVENTSEL_INT
#define PMC_ENABLE	ARCH_PERFMON_EVENTSEL_ENABLE
#define PMC_COUNT	(PMC_OS | PMC_ENABLE)

/* Where a guest's PMIs come from and go to. */
#define APIC_LVTPC	0x340	/* not in apic.h */
#define PMI_VECTOR	0x51

static inline unsigned int nr_counters(void)
{
	return shape.nr_gp + shape.nr_fixed;
}

static inline bool pmc_is_fixed(unsigned int pmc)
{
	return pmc >= shape.nr_gp;
}

/* Fixed counter 0 counts instructions; what the others count is not exact. */
static inline bool pmc_counts(unsigned int pmc, enum pmu_event event)
{
	return !pmc_is_fixed(pmc) ||
	       (pmc == shape.nr_gp && event == INSTRUCTIONS);
}

static inline u32 selector_msr(unsigned int pmc)
{
	return vendor->selector + pmc * vendor->stride;
}

static inline u32 counter_msr(unsigned int pmc)
{
	return pmc_is_fixed(pmc) ?
	       vendor->fixed_counter + pmc - shape.nr_gp :
	       vendor->counter + pmc * vendor->stride;
}

/* The counter's bit in GLOBAL_CTRL and GLOBAL_STATUS. */
static inline u64 counter_bit(unsigned int pmc)
{
	return BIT_ULL(pmc_is_fixed(pmc) ? 32 + pmc - shape.nr_gp : pmc);
}

static inline u64 counter_mask(void)
{
	return BIT_ULL(shape.width) - 1;
}

static inline u32 rdpmc_index(unsigned int pmc)
{
	return pmc_is_fixed(pmc) ?
	       vendor->fixed_rdpmc | (pmc - shape.nr_gp) : pmc;
}

static inline u64 rdpmc(u32 index)
{
	u32 low, high;

	asm volatile("rdpmc" : "=a"(low), "=d"(high) : "c"(index));
	return low | (u64)high << 32;
}

static inline u64 pmc_read(unsigned int pmc)
{
	return rdpmc(rdpmc_index(pmc));
}

/* A value that overflows after @events more. */
static inline u64 overflow_in(u64 events)
{
	return -events & counter_mask();
}

/* Guest: program a counter and set its value; GLOBAL_CTRL is left alone. */
void pmc_program(unsigned int pmc, enum pmu_event event, u64 flags, u64 value);
/* Guest: everything off, counters and status 0. */
void pmu_reset(void);

/* What a counter begins with; NULL: 0. */
typedef u64 (*first_value_fn)(unsigned int pmc);

/*
 * Guest: each counter that can counts @event from its first value on, when the
 * bits that are returned are in GLOBAL_CTRL.
 */
u64 pmc_program_all(enum pmu_event event, first_value_fn first);
/* Guest: these counters have counted so much, each from its first value on. */
void pmc_check_all(u64 enable, first_value_fn first, u64 counted);

/* Host: the skip reason when there is no mediated PMU to test, else NULL. */
const char *pmu_missing(void);
/*
 * Host: how often PMU state went into hardware for @vcpu, which is vCPU 0 of the
 * VM that this process created last.
 */
u64 pmu_loads(struct kvm_vcpu *vcpu);
/* Host: the number in debugfs of the VM that this process created last. */
unsigned long newest_vm(void);
/* Host: what debugfs says of its vCPU 0. */
u64 mvpmu_count(const char *key);
/* Host: a VM with one vCPU that has all of the PMU. */
struct kvm_vm *pmu_vm_create(struct kvm_vcpu **vcpu, void *guest_code);
/* The same with KVM_PMU_CAP_*, or 0 as a userspace that does not choose. */
struct kvm_vm *pmu_vm_create_with(struct kvm_vcpu **vcpu, void *guest_code, u64 capability);
void pmu_sync_to_guest(struct kvm_vm *vm);
/* Host: whether @shape has every counter of the CPU. */
bool guest_has_all_counters(void);
/* Host: give a vCPU that has not run yet only @nr_gp counters. */
void pmu_limit_counters(struct kvm_vcpu *vcpu, u32 nr_gp);

/*
 * Host: run the guest to its next GUEST_SYNC (returns true, argument in @arg
 * when not NULL) or GUEST_DONE (false).  @on_io, when not NULL, is called for
 * every access to TEST_PORT or TEST_MMIO, before the vCPU goes on; it may
 * replace the vCPU.
 */
#define TEST_PORT	0x1234
#define TEST_MMIO_GPA	0xd0000000ull
#define TEST_MMIO_GVA	0xd0000000ull

typedef void (*io_hook)(struct kvm_vcpu **vcpu, unsigned int nr, void *data);

bool run_guest_io(struct kvm_vcpu **vcpu, u64 *arg, io_hook on_io, void *data);

/* Host: run the guest to its next access to them (true) or GUEST_DONE (false). */
bool run_to_io(struct kvm_vcpu *vcpu);

static inline bool run_guest(struct kvm_vcpu *vcpu, u64 *arg)
{
	return run_guest_io(&vcpu, arg, NULL, NULL);
}

/* Host: a vCPU that has not run yet is in CPL 3 from its first instruction on. */
void enter_user_mode(struct kvm_vcpu *vcpu);

/* Host: map TEST_MMIO, and the xAPIC page, into the guest. */
void map_mmio(struct kvm_vm *vm);

/* Host: an event that counts this thread, and its children, outside guests. */
int open_host_event(void);

/* Host: exits but those for host interrupts, which come when they come. */
static inline u64 guest_exits(struct kvm_vcpu *vcpu)
{
	return vcpu_get_stat(vcpu, exits) - vcpu_get_stat(vcpu, irq_exits);
}

#endif /* SELFTEST_MVPMU_GUEST_PMU_H */
