/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What userspace saves of a vCPU and restores in a new VM: what libkvm does, and
 * the APIC.
 */
#ifndef SELFTEST_MVPMU_MIGRATE_H
#define SELFTEST_MVPMU_MIGRATE_H

#include "guest_pmu.h"

struct saved_vcpu {
	struct kvm_x86_state *state;
	struct kvm_lapic_state apic;
};

/* The VM's memory is all that is left of it. */
static inline void save_vcpu(struct kvm_vcpu *vcpu, struct saved_vcpu *saved)
{
	struct kvm_vm *vm = vcpu->vm;

	saved->state = vcpu_save_state(vcpu);
	vcpu_ioctl(vcpu, KVM_GET_LAPIC, &saved->apic);
	kvm_vm_release(vm);
}

static inline struct kvm_vcpu *restore_vcpu(struct kvm_vm *vm, struct saved_vcpu *saved)
{
	struct kvm_vcpu *vcpu = vm_recreate_with_one_vcpu(vm);

	vcpu_load_state(vcpu, saved->state);
	vcpu_ioctl(vcpu, KVM_SET_LAPIC, &saved->apic);
	kvm_x86_state_cleanup(saved->state);
	return vcpu;
}

static inline void migrate(struct kvm_vcpu **vcpu)
{
	struct kvm_vm *vm = (*vcpu)->vm;
	struct saved_vcpu saved;

	save_vcpu(*vcpu, &saved);
	*vcpu = restore_vcpu(vm, &saved);
}

#endif /* SELFTEST_MVPMU_MIGRATE_H */
