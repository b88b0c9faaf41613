/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _ASM_X86_KVM_MEDIATED_PMU_H
#define _ASM_X86_KVM_MEDIATED_PMU_H

#include <linux/types.h>

struct kvm;
struct kvm_vcpu;
struct module;

/**
 * struct kvm_mediated_pmu_ops - a provider of the mediated PMU
 * @owner: module that is pinned while any VM exists
 * @vm_create: a VM with a PMU is about to get its first vCPU.  Accounts the VM
 *	with perf.  May sleep.  0 or a negative errno, which fails vCPU creation.
 *	May keep data in kvm->arch.mediated_pmu_provider_data.
 * @vm_destroy: undoes @vm_create after the last vCPU is gone.  May sleep.
 * @vcpu_create: a vCPU of such a VM is being created.  May sleep.  0 or a
 *	negative errno, which fails vCPU creation.  May keep data in
 *	vcpu->arch.pmu.provider_data.
 * @vcpu_destroy: undoes @vcpu_create.  May sleep.
 * @load: the vCPU enters the guest: put perf's host context out, the guest's
 *	PMU state of vcpu->arch.pmu and the guest's LVTPC (its mask bit) into
 *	hardware.  IRQs are off.  The last thing before VM entry.
 * @put: the vCPU left the guest: undo @load.  IRQs are off.  The first thing
 *	after VM exit.
 * @pmi: a PMI of the guest arrived on PERF_GUEST_MEDIATED_PMI_VECTOR; KVM
 *	injects it.  Hard IRQ context on the vCPU's CPU.  Optional.
 * @msr_access: KVM handles an intercepted RDMSR or WRMSR of a PMU MSR.
 *	Optional.
 *
 * KVM keeps what the guest sees (CPUID, MSR semantics, event filter), what is
 * intercepted and the fields of the VMCB/VMCS; a provider moves PMU state
 * between memory and hardware.  @load, @put, @pmi and @msr_access are called
 * only for vCPUs whose @vcpu_create succeeded and that have a PMU.
 */
struct kvm_mediated_pmu_ops {
	struct module *owner;

	int (*vm_create)(const struct kvm_mediated_pmu_ops *ops,
			 struct kvm *kvm);
	void (*vm_destroy)(struct kvm *kvm);
	int (*vcpu_create)(struct kvm_vcpu *vcpu);
	void (*vcpu_destroy)(struct kvm_vcpu *vcpu);

	void (*load)(struct kvm_vcpu *vcpu, u32 guest_lvtpc);
	void (*put)(struct kvm_vcpu *vcpu);
	void (*pmi)(struct kvm_vcpu *vcpu);
	void (*msr_access)(struct kvm_vcpu *vcpu, u32 msr, bool write);
};

int kvm_mediated_pmu_register(const struct kvm_mediated_pmu_ops *ops);
void kvm_mediated_pmu_unregister(const struct kvm_mediated_pmu_ops *ops);

#endif /* _ASM_X86_KVM_MEDIATED_PMU_H */
