/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __KVM_X86_MEDIATED_PMU_H
#define __KVM_X86_MEDIATED_PMU_H

#include <linux/cleanup.h>
#include <linux/irqflags.h>
#include <linux/static_call.h>

#include <asm/kvm_mediated_pmu.h>

#include "cpuid.h"
#include "lapic.h"
#include "pmu.h"

/* Those on the way into the guest and back; the others are called through a pointer. */
#define DECLARE_PROVIDER_CALL(op)				\
	DECLARE_STATIC_CALL(kvm_mediated_pmu_##op,		\
			    *((struct kvm_mediated_pmu_ops *)0)->op)

DECLARE_PROVIDER_CALL(load);
DECLARE_PROVIDER_CALL(put);
DECLARE_PROVIDER_CALL(release);
DECLARE_PROVIDER_CALL(increment);

/* The vCPU whose PMU state was the last one in this CPU's hardware. */
DECLARE_PER_CPU(struct kvm_vcpu *, kvm_mediated_pmu_owner);

/* Announces a feature, or not: kvm_cpu_cap_set() is for vendor init only. */
static __always_inline void kvm_mediated_pmu_announce(unsigned int feature, bool on)
{
	u32 *cap = &kvm_cpu_caps[__feature_leaf(feature)];

	WRITE_ONCE(*cap, on ? *cap | __feature_bit(feature) :
			      *cap & ~__feature_bit(feature));
}

void kvm_mediated_pmu_vendor_init(bool supported);
void kvm_mediated_pmu_vendor_ready(void);
void kvm_mediated_pmu_vendor_exit(void);

int kvm_mediated_pmu_init_vm(void);
void kvm_mediated_pmu_uninit_vm(void);
int kvm_mediated_pmu_create_vm(struct kvm *kvm);
void kvm_mediated_pmu_destroy_vm(struct kvm *kvm);
int kvm_mediated_pmu_create_vcpu(struct kvm_vcpu *vcpu);
void kvm_mediated_pmu_destroy_vcpu(struct kvm_vcpu *vcpu);
void kvm_mediated_pmu_update(struct kvm_vcpu *vcpu);
struct kvm_vcpu *kvm_mediated_pmu_pmi(void);
void kvm_mediated_pmu_forget(struct kvm *kvm);
void kvm_mediated_pmu_msr_access(struct kvm_vcpu *vcpu,
				 struct msr_data *msr_info, bool write);
bool kvm_mediated_pmu_retry_global_ctrl(struct kvm_vcpu *vcpu);
bool kvm_mediated_pmu_wrmsr(struct kvm_vcpu *vcpu, u32 msr, u64 data);

/* What is in hardware of a vCPU has to be brought up to date at the next load. */
#define KVM_MEDIATED_PMU_UNCLEAN	(~0u)

static inline bool kvm_mediated_pmu_switch(struct kvm_vcpu *vcpu)
{
	if (!vcpu_to_pmu(vcpu)->passthrough ||
	    KVM_BUG_ON(!lapic_in_kernel(vcpu), vcpu->kvm))
		return false;

	lockdep_assert_irqs_disabled();
	return true;
}

/* Of the guest's LVTPC only this matters to hardware. */
static inline u32 kvm_mediated_pmu_lvtpc(struct kvm_vcpu *vcpu)
{
	return kvm_lapic_get_reg(vcpu->arch.apic, APIC_LVTPC) & APIC_LVT_MASKED;
}

static inline void kvm_mediated_pmu_load(struct kvm_vcpu *vcpu)
{
	struct kvm_pmu *pmu = vcpu_to_pmu(vcpu);

	if (pmu->in_hardware && pmu->loaded_lvtpc == kvm_mediated_pmu_lvtpc(vcpu))
		return;
	if (!kvm_mediated_pmu_switch(vcpu))
		return;

	static_call(kvm_mediated_pmu_load)(vcpu, kvm_mediated_pmu_lvtpc(vcpu));
	pmu->in_hardware = true;
	pmu->reselect = 0;
	pmu->loaded_lvtpc = kvm_mediated_pmu_lvtpc(vcpu);
	this_cpu_write(kvm_mediated_pmu_owner, vcpu);
}

static inline void kvm_mediated_pmu_put(struct kvm_vcpu *vcpu)
{
	if (kvm_mediated_pmu_switch(vcpu))
		vcpu_to_pmu(vcpu)->in_hardware = static_call(kvm_mediated_pmu_put)(vcpu);
}

/* Brings the state to memory. */
static inline void kvm_mediated_pmu_release(struct kvm_vcpu *vcpu)
{
	if (!vcpu_to_pmu(vcpu)->in_hardware)
		return;

	guard(irqsave)();
	static_call_cond(kvm_mediated_pmu_release)(vcpu);
	vcpu_to_pmu(vcpu)->in_hardware = false;
}

#endif /* __KVM_X86_MEDIATED_PMU_H */
