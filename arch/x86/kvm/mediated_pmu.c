// SPDX-License-Identifier: GPL-2.0
/*
 * Registration of a provider of the mediated PMU: a module that moves the PMU
 * state of vCPUs between memory and hardware in place of KVM's own code.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>
#include <linux/module.h>
#include <linux/perf_event.h>

#include "cpuid.h"
#include "mediated_pmu.h"
#include "x86.h"

/*
 * Protects the provider and the number of VMs.  The provider, and with it
 * enable_mediated_pmu, may change only while there is no VM: VMs and vCPUs
 * latch the mode when they are created.  Nests inside vendor_module_lock.
 */
static DEFINE_MUTEX(mediated_pmu_lock);
static const struct kvm_mediated_pmu_ops *provider;
static unsigned int nr_vms;

/* What the vendor module said when it was loaded; vendor_module_lock. */
static bool mediated_pmu_supported;

/* KVM's own configuration while the provider's replaces it; both locks. */
static bool provider_mode;
static bool saved_enable_mediated_pmu;
static u64 saved_supported_perf_cap;
static bool saved_ds, saved_dtes64;

/* Without a provider the guest accesses all its counters directly, always. */
static u64 all_counters(struct kvm_vcpu *vcpu)
{
	return ~0ull;
}

DEFINE_STATIC_CALL(kvm_mediated_pmu_update, all_counters);
DEFINE_STATIC_CALL(kvm_mediated_pmu_load, __kvm_mediated_pmu_load);
DEFINE_STATIC_CALL(kvm_mediated_pmu_put, __kvm_mediated_pmu_put);
DEFINE_STATIC_CALL_RET0(kvm_mediated_pmu_release,
			*((struct kvm_mediated_pmu_ops *)0)->release);
DEFINE_STATIC_CALL_RET0(kvm_mediated_pmu_sync_global_ctrl,
			*((struct kvm_mediated_pmu_ops *)0)->sync_global_ctrl);
DEFINE_STATIC_CALL_RET0(kvm_mediated_pmu_increment,
			*((struct kvm_mediated_pmu_ops *)0)->increment);
DEFINE_STATIC_CALL_NULL(kvm_mediated_pmu_pmi,
			*((struct kvm_mediated_pmu_ops *)0)->pmi);
DEFINE_STATIC_CALL_RET0(kvm_mediated_pmu_msr_access,
			*((struct kvm_mediated_pmu_ops *)0)->msr_access);

/* Announces a feature, or not: kvm_cpu_cap_set() is for vendor init only. */
static __always_inline void announce_feature(unsigned int feature, bool on)
{
	u32 *cap = &kvm_cpu_caps[__feature_leaf(feature)];

	if (on)
		*cap |= __feature_bit(feature);
	else
		*cap &= ~__feature_bit(feature);
}

static void set_provider_mode(bool on)
{
	if (provider_mode == on)
		return;

	provider_mode = on;
	if (on) {
		saved_enable_mediated_pmu = enable_mediated_pmu;
		saved_supported_perf_cap = kvm_caps.supported_perf_cap;
		saved_ds = kvm_cpu_cap_has(X86_FEATURE_DS);
		saved_dtes64 = kvm_cpu_cap_has(X86_FEATURE_DTES64);
		enable_mediated_pmu = true;
		/* LBRs and PEBS exist only in the perf-based PMU. */
		kvm_caps.supported_perf_cap &= PERF_CAP_FW_WRITES;
		announce_feature(X86_FEATURE_DS, false);
		announce_feature(X86_FEATURE_DTES64, false);
	} else {
		enable_mediated_pmu = saved_enable_mediated_pmu;
		kvm_caps.supported_perf_cap = saved_supported_perf_cap;
		announce_feature(X86_FEATURE_DS, saved_ds);
		announce_feature(X86_FEATURE_DTES64, saved_dtes64);
	}
}

/*
 * The life of a vendor module, under vendor_module_lock: init before KVM's
 * capabilities are computed, ready when they are, exit.
 */
void kvm_mediated_pmu_vendor_init(bool supported)
{
	mediated_pmu_supported = supported;
	enable_mediated_pmu &= supported;
}

void kvm_mediated_pmu_vendor_ready(void)
{
	guard(mutex)(&mediated_pmu_lock);

	if (provider && !mediated_pmu_supported)
		pr_warn("mediated PMU provider %s is idle, the host's PMU lacks support\n",
			module_name(provider->owner));
	set_provider_mode(provider && mediated_pmu_supported);
}

void kvm_mediated_pmu_vendor_exit(void)
{
	guard(mutex)(&mediated_pmu_lock);

	set_provider_mode(false);
}

static void set_static_calls(const struct kvm_mediated_pmu_ops *ops)
{
	static_call_update(kvm_mediated_pmu_update,
			   ops ? ops->update : all_counters);
	static_call_update(kvm_mediated_pmu_load,
			   ops ? ops->load : __kvm_mediated_pmu_load);
	static_call_update(kvm_mediated_pmu_put,
			   ops ? ops->put : __kvm_mediated_pmu_put);
	static_call_update(kvm_mediated_pmu_release,
			   ops ? ops->release : (void *)__static_call_return0);
	static_call_update(kvm_mediated_pmu_sync_global_ctrl,
			   ops ? ops->sync_global_ctrl :
				 (void *)__static_call_return0);
	static_call_update(kvm_mediated_pmu_increment,
			   ops ? ops->increment : (void *)__static_call_return0);
	static_call_update(kvm_mediated_pmu_pmi, ops ? ops->pmi : NULL);
	static_call_update(kvm_mediated_pmu_msr_access,
			   ops ? ops->msr_access :
				 (void *)__static_call_return0);
}

/**
 * kvm_mediated_pmu_register - take over the context switch of mediated PMUs
 * @ops: the provider; must stay valid until kvm_mediated_pmu_unregister()
 *
 * From now on every new VM has a mediated PMU, whatever the parameter
 * enable_mediated_pmu says.  Without a vendor module (kvm-amd, kvm-intel) the
 * mode is decided when one is loaded.
 *
 * Return: 0; -EBUSY while VMs exist or another provider is registered; -ENODEV
 * if the host's PMU or KVM's configuration can't do it.  The reason is logged.
 */
int kvm_mediated_pmu_register(const struct kvm_mediated_pmu_ops *ops)
{
	const char *name = ops->owner ? module_name(ops->owner) : "built-in";

	if (WARN_ON_ONCE(!ops->vm_create || !ops->vm_destroy ||
			 !ops->vcpu_create || !ops->vcpu_destroy ||
			 !ops->update || !ops->load || !ops->put ||
			 !ops->release || !ops->sync_global_ctrl ||
			 !ops->increment || !ops->msr_access))
		return -EINVAL;

	guard(mutex)(&vendor_module_lock);
	guard(mutex)(&mediated_pmu_lock);

	if (provider) {
		pr_err("mediated PMU provider %s refused, %s is registered\n",
		       name, module_name(provider->owner));
		return -EBUSY;
	}
	if (nr_vms) {
		pr_err("mediated PMU provider %s refused, virtual machines exist\n",
		       name);
		return -EBUSY;
	}

	if (kvm_x86_ops.enable_virtualization_cpu && !mediated_pmu_supported) {
		pr_err("mediated PMU provider %s refused, %s\n", name,
		       enable_pmu ? "the host's PMU lacks support" :
				    "KVM's PMU is off (enable_pmu=0)");
		return -ENODEV;
	}

	set_static_calls(ops);
	provider = ops;
	set_provider_mode(kvm_x86_ops.enable_virtualization_cpu);
	return 0;
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_mediated_pmu_register);

/**
 * kvm_mediated_pmu_unregister - give the context switch back to KVM
 * @ops: the registered provider
 *
 * There is no VM: each one pins the provider's module.
 */
void kvm_mediated_pmu_unregister(const struct kvm_mediated_pmu_ops *ops)
{
	guard(mutex)(&vendor_module_lock);
	guard(mutex)(&mediated_pmu_lock);

	if (WARN_ON_ONCE(provider != ops || nr_vms))
		return;

	set_provider_mode(false);
	provider = NULL;
	set_static_calls(NULL);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_mediated_pmu_unregister);

/* Pins the provider, or its absence, for the life of a VM. */
int kvm_mediated_pmu_init_vm(void)
{
	guard(mutex)(&mediated_pmu_lock);

	if (provider && !try_module_get(provider->owner))
		return -EBUSY;
	nr_vms++;
	return 0;
}

void kvm_mediated_pmu_uninit_vm(void)
{
	guard(mutex)(&mediated_pmu_lock);

	nr_vms--;
	if (provider)
		module_put(provider->owner);
}

/* The provider can't change below, the VM pins it. */

int kvm_mediated_pmu_create_vm(struct kvm *kvm)
{
	return provider ? provider->vm_create(provider, kvm) :
			  perf_create_mediated_pmu();
}

void kvm_mediated_pmu_destroy_vm(struct kvm *kvm)
{
	if (provider)
		provider->vm_destroy(kvm);
	else
		perf_release_mediated_pmu();
}

int kvm_mediated_pmu_create_vcpu(struct kvm_vcpu *vcpu)
{
	if (!provider || !vcpu->kvm->arch.created_mediated_pmu)
		return 0;
	return provider->vcpu_create(vcpu);
}

void kvm_mediated_pmu_destroy_vcpu(struct kvm_vcpu *vcpu)
{
	if (provider && vcpu->kvm->arch.created_mediated_pmu)
		provider->vcpu_destroy(vcpu);
}

/* Finds out which counters the guest is to access directly. */
void kvm_mediated_pmu_update(struct kvm_vcpu *vcpu)
{
	struct kvm_pmu *pmu = vcpu_to_pmu(vcpu);
	u64 passthrough = 0;

	if (kvm_vcpu_has_mediated_pmu(vcpu))
		passthrough = static_call(kvm_mediated_pmu_update)(vcpu);
	/* An L2 that is entered now would keep the interception, too. */
	if (passthrough && vcpu->arch.efer & EFER_SVME)
		passthrough |= KVM_MEDIATED_PMU_GLOBAL_CTRL;
	if (pmu->passthrough == passthrough)
		return;

	/* The VMCS controls of L1 can only be changed while L1 runs. */
	if (is_guest_mode(vcpu) && !pmu->passthrough != !passthrough) {
		pmu->passthrough_pending = true;
		return;
	}

	if (!passthrough)
		/* From now on KVM serves the guest from memory. */
		kvm_mediated_pmu_release(vcpu);
	else if (!(passthrough & KVM_MEDIATED_PMU_GLOBAL_CTRL))
		/* From now on what is in memory is current. */
		kvm_mediated_pmu_sync_global_ctrl(vcpu);

	pmu->passthrough = passthrough;
	kvm_make_request(KVM_REQ_RECALC_INTERCEPTS, vcpu);
}

/*
 * The guest writes PERF_GLOBAL_CTRL, intercepted only for the value in memory to
 * be current.  True if it is to execute the instruction again, directly: then
 * the instruction itself is counted as the old value says.
 */
bool kvm_mediated_pmu_retry_global_ctrl(struct kvm_vcpu *vcpu)
{
	struct kvm_pmu *pmu = vcpu_to_pmu(vcpu);
	u32 msr = kvm_rcx_read(vcpu);

	if (!pmu->passthrough ||
	    pmu->passthrough & KVM_MEDIATED_PMU_GLOBAL_CTRL ||
	    kvm_need_perf_global_ctrl_intercept(vcpu) ||
	    !kvm_msr_allowed(vcpu, msr, KVM_MSR_FILTER_WRITE) ||
	    vcpu->arch.guest_state_protected || is_guest_mode(vcpu))
		return false;

	static_call(kvm_mediated_pmu_msr_access)(vcpu, msr, true);
	pmu->passthrough |= KVM_MEDIATED_PMU_GLOBAL_CTRL;
	kvm_make_request(KVM_REQ_RECALC_INTERCEPTS, vcpu);
	return true;
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_mediated_pmu_retry_global_ctrl);
