/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __KVM_X86_MEDIATED_PMU_H
#define __KVM_X86_MEDIATED_PMU_H

#include <linux/cleanup.h>
#include <linux/irqflags.h>
#include <linux/static_call.h>

#include <asm/kvm_mediated_pmu.h>

#include "lapic.h"
#include "pmu.h"

#define DECLARE_PROVIDER_CALL(op)				\
	DECLARE_STATIC_CALL(kvm_mediated_pmu_##op,		\
			    *((struct kvm_mediated_pmu_ops *)0)->op)

DECLARE_PROVIDER_CALL(update);
DECLARE_PROVIDER_CALL(load);
DECLARE_PROVIDER_CALL(put);
DECLARE_PROVIDER_CALL(release);
DECLARE_PROVIDER_CALL(sync_global_ctrl);
DECLARE_PROVIDER_CALL(increment);
DECLARE_PROVIDER_CALL(pmi);
DECLARE_PROVIDER_CALL(msr_access);

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
void kvm_mediated_pmu_update(struct kvm_vcpu *vcpu);
bool kvm_mediated_pmu_retry_global_ctrl(struct kvm_vcpu *vcpu);

static inline bool kvm_mediated_pmu_switch(struct kvm_vcpu *vcpu)
{
	if (!vcpu_to_pmu(vcpu)->passthrough ||
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
	vcpu_to_pmu(vcpu)->in_hardware = true;
}

static inline void kvm_mediated_pmu_put(struct kvm_vcpu *vcpu)
{
	enum kvm_mediated_pmu_put put;

	if (!kvm_mediated_pmu_switch(vcpu))
		return;

	put = static_call(kvm_mediated_pmu_put)(vcpu);
	vcpu_to_pmu(vcpu)->in_hardware = put == KVM_MEDIATED_PMU_IN_HARDWARE;
	if (put == KVM_MEDIATED_PMU_IN_MEMORY_UPDATE)
		kvm_make_request(KVM_REQ_PMU, vcpu);
}

/* Brings the state to memory. */
static inline void kvm_mediated_pmu_release(struct kvm_vcpu *vcpu)
{
	if (!vcpu_to_pmu(vcpu)->in_hardware)
		return;

	guard(irqsave)();
	if (static_call(kvm_mediated_pmu_release)(vcpu))
		kvm_make_request(KVM_REQ_PMU, vcpu);
	vcpu_to_pmu(vcpu)->in_hardware = false;
}

static inline void kvm_mediated_pmu_sync_global_ctrl(struct kvm_vcpu *vcpu)
{
	struct kvm_pmu *pmu = vcpu_to_pmu(vcpu);

	if (!pmu->in_hardware || !(pmu->passthrough & KVM_MEDIATED_PMU_GLOBAL_CTRL))
		return;

	guard(irqsave)();
	if (static_call(kvm_mediated_pmu_sync_global_ctrl)(vcpu))
		kvm_make_request(KVM_REQ_PMU, vcpu);
}

/* Whether the counter, which is in hardware, overflowed. */
static inline bool kvm_mediated_pmu_increment(struct kvm_vcpu *vcpu, u32 idx)
{
	guard(irqsave)();
	return static_call(kvm_mediated_pmu_increment)(vcpu, idx);
}

static inline void kvm_mediated_pmu_msr_access(struct kvm_vcpu *vcpu,
					       struct msr_data *msr_info,
					       bool write)
{
	u32 msr = msr_info->index;

	if (kvm_vcpu_has_mediated_pmu(vcpu) && !msr_info->host_initiated &&
	    static_call(kvm_mediated_pmu_msr_access)(vcpu, msr, write))
		kvm_mediated_pmu_release(vcpu);
}

#endif /* __KVM_X86_MEDIATED_PMU_H */
