/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __KVM_X86_MEDIATED_PMU_H
#define __KVM_X86_MEDIATED_PMU_H

#include <linux/static_call.h>

#include <asm/kvm_mediated_pmu.h>

#include "lapic.h"
#include "pmu.h"

DECLARE_STATIC_CALL(kvm_mediated_pmu_load, __kvm_mediated_pmu_load);
DECLARE_STATIC_CALL(kvm_mediated_pmu_put, __kvm_mediated_pmu_put);
DECLARE_STATIC_CALL(kvm_mediated_pmu_pmi,
		    *((struct kvm_mediated_pmu_ops *)0)->pmi);
DECLARE_STATIC_CALL(kvm_mediated_pmu_msr_access,
		    *((struct kvm_mediated_pmu_ops *)0)->msr_access);

/* Serializes the loading and unloading of vendor modules, in x86.c. */
extern struct mutex vendor_module_lock;

void kvm_mediated_pmu_vendor_init(bool supported);
void kvm_mediated_pmu_vendor_ready(void);
void kvm_mediated_pmu_vendor_exit(void);

int kvm_mediated_pmu_init_vm(void);
void kvm_mediated_pmu_uninit_vm(void);
int kvm_mediated_pmu_create_vm(struct kvm *kvm);
void kvm_mediated_pmu_destroy_vm(struct kvm *kvm);
int kvm_mediated_pmu_create_vcpu(struct kvm_vcpu *vcpu);
void kvm_mediated_pmu_destroy_vcpu(struct kvm_vcpu *vcpu);

static inline bool kvm_mediated_pmu_switch(struct kvm_vcpu *vcpu)
{
	if (!kvm_vcpu_has_mediated_pmu(vcpu) ||
	    KVM_BUG_ON(!lapic_in_kernel(vcpu), vcpu->kvm))
		return false;

	lockdep_assert_irqs_disabled();
	return true;
}

static inline void kvm_mediated_pmu_load(struct kvm_vcpu *vcpu)
{
	u32 lvtpc;

	if (!kvm_mediated_pmu_switch(vcpu))
		return;

	lvtpc = kvm_lapic_get_reg(vcpu->arch.apic, APIC_LVTPC);
	static_call(kvm_mediated_pmu_load)(vcpu, lvtpc);
}

static inline void kvm_mediated_pmu_put(struct kvm_vcpu *vcpu)
{
	if (kvm_mediated_pmu_switch(vcpu))
		static_call(kvm_mediated_pmu_put)(vcpu);
}

static inline void kvm_mediated_pmu_msr_access(struct kvm_vcpu *vcpu,
					       struct msr_data *msr_info,
					       bool write)
{
	u32 msr = msr_info->index;

	if (kvm_vcpu_has_mediated_pmu(vcpu) && !msr_info->host_initiated)
		static_call_cond(kvm_mediated_pmu_msr_access)(vcpu, msr, write);
}

#endif /* __KVM_X86_MEDIATED_PMU_H */
