// SPDX-License-Identifier: GPL-2.0
/*
 * Registration of a provider of the mediated PMU: a module that moves the PMU
 * state of vCPUs between memory and hardware in place of KVM's own code.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>
#include <linux/module.h>
#include <linux/perf_event.h>
#include <linux/workqueue.h>

#include "cpuid.h"
#include "mediated_pmu.h"
#include "x86.h"

/*
 * Protects what follows.  The provider, and with it enable_mediated_pmu, may
 * change only while there is no VM: VMs and vCPUs latch the mode when they are
 * created.
 */
static DEFINE_MUTEX(mediated_pmu_lock);
static const struct kvm_mediated_pmu_ops *provider;
static unsigned int nr_vms;

/* A vendor module is loaded, and what it said about the host. */
static bool vendor_ready;
static bool mediated_pmu_supported;

/* KVM's own configuration while the provider's replaces it. */
static bool provider_mode;
static bool saved_enable_mediated_pmu;
static bool saved_ds, saved_dtes64;

DEFINE_STATIC_CALL(kvm_mediated_pmu_load, __kvm_mediated_pmu_load);
DEFINE_STATIC_CALL(kvm_mediated_pmu_put, __kvm_mediated_pmu_put);
/* Without a provider nothing stays in hardware. */
DEFINE_STATIC_CALL_NULL(kvm_mediated_pmu_release,
			*((struct kvm_mediated_pmu_ops *)0)->release);
DEFINE_STATIC_CALL_RET0(kvm_mediated_pmu_increment,
			*((struct kvm_mediated_pmu_ops *)0)->increment);

static const char *provider_name(void)
{
	return provider->owner ? module_name(provider->owner) : "built-in code";
}

/*
 * What KVM reports to userspace about the PMU (CPUID and feature MSRs) changes,
 * but not while there is a VM: who has one may rely on what KVM reports, also
 * for a VM that is created then.  Without a VM, KVM may report the one, the other
 * or something in between, as it may while a vendor module is replaced.
 */
static void set_provider_mode(bool on)
{
	if (provider_mode == on)
		return;

	provider_mode = on;
	if (on) {
		if (!enable_mediated_pmu)
			pr_info("enable_mediated_pmu is Y as long as %s provides the mediated PMU\n",
				provider_name());
		saved_enable_mediated_pmu = enable_mediated_pmu;
		saved_ds = kvm_cpu_cap_has(X86_FEATURE_DS);
		saved_dtes64 = kvm_cpu_cap_has(X86_FEATURE_DTES64);
		enable_mediated_pmu = true;
		kvm_pmu_set_provider_mode(provider);
		kvm_mediated_pmu_announce(X86_FEATURE_DS, false);
		kvm_mediated_pmu_announce(X86_FEATURE_DTES64, false);
	} else {
		enable_mediated_pmu = saved_enable_mediated_pmu;
		kvm_pmu_set_provider_mode(NULL);
		kvm_mediated_pmu_announce(X86_FEATURE_DS, saved_ds);
		kvm_mediated_pmu_announce(X86_FEATURE_DTES64, saved_dtes64);
	}
}

/*
 * The life of a vendor module, one at a time: init before KVM's capabilities are
 * computed, ready when they are, exit.
 */
void kvm_mediated_pmu_vendor_init(bool supported)
{
	guard(mutex)(&mediated_pmu_lock);

	mediated_pmu_supported = supported;
	enable_mediated_pmu &= supported;
}

void kvm_mediated_pmu_vendor_ready(void)
{
	guard(mutex)(&mediated_pmu_lock);

	if (provider && !mediated_pmu_supported)
		pr_warn("mediated PMU provider %s is idle, the host's PMU lacks support\n",
			provider_name());
	vendor_ready = true;
	set_provider_mode(provider && mediated_pmu_supported);
}

void kvm_mediated_pmu_vendor_exit(void)
{
	guard(mutex)(&mediated_pmu_lock);

	set_provider_mode(false);
	vendor_ready = false;
}

static void set_static_calls(const struct kvm_mediated_pmu_ops *ops)
{
	static_call_update(kvm_mediated_pmu_load,
			   ops ? ops->load : __kvm_mediated_pmu_load);
	static_call_update(kvm_mediated_pmu_put,
			   ops ? ops->put : __kvm_mediated_pmu_put);
	static_call_update(kvm_mediated_pmu_release, ops ? ops->release : NULL);
	static_call_update(kvm_mediated_pmu_increment,
			   ops ? ops->increment : (void *)__static_call_return0);
}

/* vCPUs that count nothing, as perf_create_mediated_pmu() failed for them. */
static atomic_t nr_waiting;

static void retry_waiting(struct work_struct *work);
static DECLARE_DELAYED_WORK(retry_work, retry_waiting);

/* Has @update called for all vCPUs. */
static void request_all_updates(unsigned int req)
{
	struct kvm *kvm;

	guard(mutex)(&kvm_lock);
	list_for_each_entry(kvm, &vm_list, vm_list) {
		if (kvm->arch.created_mediated_pmu)
			kvm_make_all_cpus_request(kvm, req);
	}
}

/*
 * Perf wants the PMU back.  A vCPU that is in the guest has left it when this
 * returns, and none enters before @update was called.
 */
static void yield_pmu(void)
{
	request_all_updates(KVM_REQ_PMU | KVM_REQUEST_WAIT);
}

/* Has @update called for all vCPUs once perf would account a guest. */
static void retry_waiting(struct work_struct *work)
{
	if (!atomic_read(&nr_waiting))
		return;
	if (perf_create_mediated_pmu()) {
		kvm_mediated_pmu_wait_on();
		return;
	}
	perf_release_mediated_pmu();
	request_all_updates(KVM_REQ_PMU);
}

/**
 * kvm_mediated_pmu_wait - a vCPU waits until perf lets guests have the PMU
 * @vcpu: the vCPU, whose provider's @update got -EBUSY from perf
 *
 * KVM asks perf now and then, and calls @update once it might succeed; if it does
 * not, kvm_mediated_pmu_wait_on().
 */
void kvm_mediated_pmu_wait(struct kvm_vcpu *vcpu)
{
	pr_info_ratelimited("vCPU %d of process %d waits for the PMU, an event of the host counts in guests\n",
			    vcpu->vcpu_id, vcpu->kvm->userspace_pid);
	atomic_inc(&nr_waiting);
	kvm_mediated_pmu_wait_on();
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_mediated_pmu_wait);

/**
 * kvm_mediated_pmu_wait_on - perf still refuses
 */
void kvm_mediated_pmu_wait_on(void)
{
	schedule_delayed_work(&retry_work, HZ / 10);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_mediated_pmu_wait_on);

/**
 * kvm_mediated_pmu_wait_end - a vCPU no longer waits
 * @vcpu: the vCPU; NULL if it is gone
 */
void kvm_mediated_pmu_wait_end(struct kvm_vcpu *vcpu)
{
	atomic_dec(&nr_waiting);
	if (vcpu)
		pr_info_ratelimited("vCPU %d of process %d no longer waits for the PMU\n",
				    vcpu->vcpu_id, vcpu->kvm->userspace_pid);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_mediated_pmu_wait_end);

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
			 !ops->release || !ops->increment ||
			 !ops->msr_access))
		return -EINVAL;

	guard(mutex)(&mediated_pmu_lock);

	if (provider) {
		pr_err("mediated PMU provider %s refused, %s is registered\n",
		       name, provider_name());
		return -EBUSY;
	}
	if (nr_vms) {
		pr_err("mediated PMU provider %s refused, virtual machines exist\n",
		       name);
		return -EBUSY;
	}

	if (vendor_ready && !mediated_pmu_supported) {
		pr_err("mediated PMU provider %s refused, %s\n", name,
		       enable_pmu ? "the host's PMU lacks support" :
				    "KVM's PMU is off (enable_pmu=0)");
		return -ENODEV;
	}

	set_static_calls(ops);
	if (ops->yields)
		perf_set_mediated_pmu_yield(yield_pmu);
	provider = ops;
	set_provider_mode(vendor_ready);
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
	guard(mutex)(&mediated_pmu_lock);

	if (WARN_ON_ONCE(provider != ops || nr_vms))
		return;

	set_provider_mode(false);
	perf_set_mediated_pmu_yield(NULL);
	provider = NULL;
	set_static_calls(NULL);
	cancel_delayed_work_sync(&retry_work);
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

	pmu->loaded_lvtpc = KVM_MEDIATED_PMU_UNCLEAN;
	if (kvm_vcpu_has_mediated_pmu(vcpu)) {
		might_sleep();
		/* Without a provider all of them, always. */
		passthrough = !provider ? ~0ull :
			      provider->update(vcpu, is_guest_mode(vcpu) &&
						     pmu->passthrough);
	}
	/* An L2 that is entered now would keep the interception, too. */
	if (passthrough && vcpu->arch.efer & EFER_SVME)
		passthrough |= KVM_MEDIATED_PMU_GLOBAL_CTRL;
	if (!kvm_pmu_has_all_counters(pmu))
		passthrough &= ~KVM_MEDIATED_PMU_GLOBAL_CTRL;
	if (pmu->passthrough == passthrough)
		return;

	/* L2 has the accesses, which can be taken back when it exits. */
	if (!passthrough && is_guest_mode(vcpu)) {
		pmu->update_pending = true;
		return;
	}
	/* From now on what is in memory is current. */
	if (!passthrough ||
	    pmu->passthrough & ~passthrough & KVM_MEDIATED_PMU_GLOBAL_CTRL)
		kvm_mediated_pmu_release(vcpu);

	pmu->passthrough = passthrough;
	kvm_make_request(KVM_REQ_RECALC_INTERCEPTS, vcpu);
}

/**
 * kvm_mediated_pmu_request_update - have @update called before the next VM entry
 * @vcpu: the vCPU, which may be running
 */
void kvm_mediated_pmu_request_update(struct kvm_vcpu *vcpu)
{
	kvm_make_request(KVM_REQ_PMU, vcpu);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_mediated_pmu_request_update);

/*
 * The guest writes an MSR, perhaps an event selector, while its PMU state is in
 * hardware; IRQs are off, and the guest may be entered again without a load.
 * False if that is not to be handled here.
 */
bool kvm_mediated_pmu_wrmsr(struct kvm_vcpu *vcpu, u32 msr, u64 data)
{
	struct msr_data info = { .index = msr, .data = data };
	struct kvm_pmu *pmu = vcpu_to_pmu(vcpu);

	if (!pmu->provider_data || !pmu->in_hardware ||
	    rcu_access_pointer(vcpu->kvm->arch.msr_filter) ||
	    !kvm_pmu_is_valid_msr(vcpu, msr))
		return false;
	/* That is about to pass through, see kvm_mediated_pmu_retry_global_ctrl(). */
	if (msr == MSR_AMD64_PERF_CNTR_GLOBAL_CTL && kvm_pmu_has_all_counters(pmu))
		return false;
	if (kvm_pmu_set_msr(vcpu, &info))
		return false;

	kvm_mediated_pmu_load(vcpu);
	return true;
}

DEFINE_PER_CPU(struct kvm_vcpu *, kvm_mediated_pmu_owner);

/*
 * A PMI arrived.  Whose?  It may come late, when the vCPU no longer runs, but a
 * CPU does not take as long for it as it takes to load the PMU of another vCPU.
 * So it is that of the last one that was loaded here, wherever that is by now:
 * its overflow is in GLOBAL_STATUS, which was saved at the put.  NULL if the VM is
 * gone.
 */
struct kvm_vcpu *kvm_mediated_pmu_pmi(void)
{
	struct kvm_vcpu *vcpu = this_cpu_read(kvm_mediated_pmu_owner);

	if (!vcpu)
		return NULL;

	/* The CPU may have masked the LVTPC. */
	vcpu_to_pmu(vcpu)->loaded_lvtpc = KVM_MEDIATED_PMU_UNCLEAN;
	if (vcpu_to_pmu(vcpu)->provider_data && provider->pmi)
		provider->pmi(vcpu);
	return vcpu;
}

/* The vCPUs are about to be destroyed. */
void kvm_mediated_pmu_forget(struct kvm *kvm)
{
	struct kvm_vcpu *vcpu;
	int cpu;

	if (!kvm->arch.created_mediated_pmu)
		return;

	scoped_guard(rcu) {
		for_each_possible_cpu(cpu) {
			vcpu = READ_ONCE(per_cpu(kvm_mediated_pmu_owner, cpu));
			if (vcpu && vcpu->kvm == kvm)
				cmpxchg(per_cpu_ptr(&kvm_mediated_pmu_owner, cpu),
					vcpu, NULL);
		}
	}
	/* An interrupt may have read it before. */
	synchronize_rcu();
}

void kvm_mediated_pmu_msr_access(struct kvm_vcpu *vcpu,
				 struct msr_data *msr_info, bool write)
{
	struct kvm_pmu *pmu = vcpu_to_pmu(vcpu);

	if (!pmu->provider_data || msr_info->host_initiated ||
	    !kvm_vcpu_has_mediated_pmu(vcpu))
		return;

	guard(irqsave)();

	if (provider->msr_access(vcpu, msr_info->index, write))
		kvm_mediated_pmu_release(vcpu);
	else if (write)
		pmu->loaded_lvtpc = KVM_MEDIATED_PMU_UNCLEAN;
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

	if (!pmu->provider_data || !pmu->passthrough ||
	    pmu->passthrough & KVM_MEDIATED_PMU_GLOBAL_CTRL ||
	    kvm_need_perf_global_ctrl_intercept(vcpu) ||
	    !kvm_msr_allowed(vcpu, msr, KVM_MSR_FILTER_WRITE) ||
	    vcpu->arch.guest_state_protected || is_guest_mode(vcpu))
		return false;

	scoped_guard(irqsave)
		provider->msr_access(vcpu, msr, true);
	pmu->passthrough |= KVM_MEDIATED_PMU_GLOBAL_CTRL;
	/* The provider is to know before the guest writes it. */
	pmu->loaded_lvtpc = KVM_MEDIATED_PMU_UNCLEAN;
	kvm_make_request(KVM_REQ_RECALC_INTERCEPTS, vcpu);
	return true;
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_mediated_pmu_retry_global_ctrl);
