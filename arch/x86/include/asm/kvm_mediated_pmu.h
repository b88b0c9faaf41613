/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _ASM_X86_KVM_MEDIATED_PMU_H
#define _ASM_X86_KVM_MEDIATED_PMU_H

#include <linux/bits.h>
#include <linux/types.h>

struct kvm;
struct kvm_vcpu;
struct module;

/* In the value of @update, beyond all counters. */
#define KVM_MEDIATED_PMU_BRANCHES_BIT		62
#define KVM_MEDIATED_PMU_BRANCHES	BIT_ULL(KVM_MEDIATED_PMU_BRANCHES_BIT)
#define KVM_MEDIATED_PMU_GLOBAL_CTRL_BIT	63
#define KVM_MEDIATED_PMU_GLOBAL_CTRL	BIT_ULL(KVM_MEDIATED_PMU_GLOBAL_CTRL_BIT)

/**
 * struct kvm_mediated_pmu_ops - a provider of the mediated PMU
 * @owner: module that is pinned while any VM exists
 * @yields: guests give the PMU back when perf wants it for an event that counts
 *	in them, for which KVM has @update called that looks at
 *	perf_mediated_pmu_wanted().  Needs guests to be accounted by @update.
 * @branches: guests have a branch stack, if KVM can give them one (SVM)
 * @pt: guests have an Intel PT of their own, if KVM can give them one (VMX)
 * @vm_create: a VM with a PMU is about to get its first vCPU.  May sleep.  0 or
 *	a negative errno, which fails vCPU creation.  May keep data in
 *	kvm->arch.mediated_pmu_provider_data.
 * @vm_destroy: undoes @vm_create after the last vCPU is gone.  May sleep.
 * @vcpu_create: a vCPU of such a VM is being created.  May sleep.  0 or a
 *	negative errno, which fails vCPU creation.  Keeps data, not NULL, in
 *	vcpu->arch.pmu.provider_data.
 * @vcpu_destroy: undoes @vcpu_create.  May sleep.
 * @update: the guest's PMU was configured anew, or selectors, FIXED_CTR_CTRL
 *	or the event filter have changed, or kvm_mediated_pmu_request_update().
 *	Returns the counters, by index, that the guest is to access directly, with
 *	fixed counter 3 also PERF_METRICS, which a guest that has it reads by
 *	RDPMC as soon as any counter passes through, and
 *	KVM_MEDIATED_PMU_GLOBAL_CTRL_BIT if its writes of PERF_GLOBAL_CTRL are to
 *	pass through; a provider for VMX sets that bit whenever there are counters.
 *	With KVM_MEDIATED_PMU_BRANCHES_BIT the guest accesses its branch stack
 *	directly, which the CPU swaps at VM entry and exit (SVM), or @load has put
 *	into hardware by perf_guest_lbr_load() (VMX); for guests for which
 *	kvm_pmu_records_branches() says that they record, or did lately.
 *	If there are none, KVM serves the guest's accesses from memory, and calls
 *	neither @load nor @put.  Accounts the guest with perf before it returns
 *	any.  If @keep, some pass through and L2 runs: "none" is but a wish, for
 *	which KVM calls again when L2 has exited, and until then the guest must
 *	stay accounted, also if perf wants the PMU back.  May sleep.
 * @load: the vCPU enters the guest: put perf's host context out, the guest's
 *	PMU state of vcpu->arch.pmu and the guest's LVTPC (its mask bit) into
 *	hardware, unless they are there.  IRQs are off.  The last thing before
 *	VM entry.  Not called if the state is in hardware and nothing of it has
 *	changed in memory.
 * @put: the vCPU left the guest: undo @load, or leave the state in hardware with
 *	all counters stopped until the next @load or @release.  Returns whether it
 *	did.  IRQs are off.  The first thing after VM exit.
 * @release: undo @load, which @put did not, or not yet.  The vCPU leaves the CPU
 *	or returns to userspace, or KVM needs the state in memory.  IRQs are off,
 *	the runqueue's lock may be held.
 * @increment: an emulated instruction moves those of @counters that
 *	PERF_GLOBAL_CTRL enables.  IRQs are off.  Called only while the state is in
 *	hardware.  Returns those that overflowed, and sets their bits in
 *	GLOBAL_STATUS.
 * @pmi: a PMI of the guest arrived on PERF_GUEST_MEDIATED_PMI_VECTOR; KVM
 *	injects it.  Hard IRQ context on the vCPU's CPU.  Optional.
 * @msr_access: KVM handles an intercepted RDMSR or WRMSR of a PMU MSR: makes what
 *	memory has of it current, or returns true, for the whole state to be brought
 *	there (@release).  What is written gets to hardware by @load.  IRQs are off.
 *
 * KVM keeps what the guest sees (CPUID, MSR semantics, event filter), what is
 * intercepted and the fields of the VMCB/VMCS; a provider moves PMU state
 * between memory and hardware.  Everything from @update on is called by the
 * vCPU's thread (@pmi: in an interrupt of it), for vCPUs whose @vcpu_create
 * succeeded and that have a PMU.
 */
struct kvm_mediated_pmu_ops {
	struct module *owner;
	bool yields;
	bool branches;
	bool pt;

	int (*vm_create)(const struct kvm_mediated_pmu_ops *ops,
			 struct kvm *kvm);
	void (*vm_destroy)(struct kvm *kvm);
	int (*vcpu_create)(struct kvm_vcpu *vcpu);
	void (*vcpu_destroy)(struct kvm_vcpu *vcpu);

	u64 (*update)(struct kvm_vcpu *vcpu, bool keep);
	void (*load)(struct kvm_vcpu *vcpu, u32 guest_lvtpc);
	bool (*put)(struct kvm_vcpu *vcpu);
	void (*release)(struct kvm_vcpu *vcpu);
	u64 (*increment)(struct kvm_vcpu *vcpu, u64 counters);
	void (*pmi)(struct kvm_vcpu *vcpu);
	bool (*msr_access)(struct kvm_vcpu *vcpu, u32 msr, bool write);
};

int kvm_mediated_pmu_register(const struct kvm_mediated_pmu_ops *ops);
void kvm_mediated_pmu_unregister(const struct kvm_mediated_pmu_ops *ops);
void kvm_mediated_pmu_request_update(struct kvm_vcpu *vcpu);
void kvm_mediated_pmu_wait(struct kvm_vcpu *vcpu);
void kvm_mediated_pmu_wait_on(void);
void kvm_mediated_pmu_wait_end(struct kvm_vcpu *vcpu);

#endif /* _ASM_X86_KVM_MEDIATED_PMU_H */
