// SPDX-License-Identifier: GPL-2.0
/*
 * Guests that have no last branch records, though the CPU may: neither do they have
 * the registers.  It is the same where KVM gives them to no guest.
 */
#include "guest_branches.h"
#include "harness.h"

/* To the guest: without LBR virtualization KVM ignores what is written to DebugCtl. */
static int debugctl_vector;

static void guest_has_none(void)
{
	unsigned int n;
	u64 value;
	u32 msr;

	for (n = 0; n < nr_lbr_msrs(); n++) {
		msr = lbr_msr(n);
		__GUEST_ASSERT(rdmsr_safe(msr, &value) == GP_VECTOR, "RDMSR(0x%x)", msr);
		__GUEST_ASSERT(wrmsr_safe(msr, 0) == GP_VECTOR, "WRMSR(0x%x)", msr);
	}
	GUEST_ASSERT_EQ(wrmsr_safe(lbr_control(), recording_of(0)), GP_VECTOR);
	GUEST_ASSERT_EQ(wrmsr_safe(MSR_IA32_DEBUGCTLMSR, FLBRI), debugctl_vector);
	GUEST_ASSERT_EQ(wrmsr_safe(MSR_IA32_DEBUGCTLMSR, FPMCI), debugctl_vector);
	GUEST_DONE();
}

FIXTURE(no_branches) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(no_branches) {
	u64 capability;
};

FIXTURE_VARIANT_ADD(no_branches, by_cpuid) { .capability = 0, };
FIXTURE_VARIANT_ADD(no_branches, no_pmu) { .capability = KVM_PMU_CAP_DISABLE, };
FIXTURE_VARIANT_ADD(no_branches, emulated_pmu) { .capability = KVM_PMU_CAP_EMULATED, };

FIXTURE_SETUP(no_branches)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create_with(&self->vcpu, guest_has_none, variant->capability);
	if (!variant->capability) {
		if (host_cpu_is_intel) {
			vcpu_clear_cpuid_feature(self->vcpu, X86_FEATURE_ARCH_LBR);
		} else {
			vcpu_clear_cpuid_feature(self->vcpu, X86_FEATURE_LBR_STACK);
			vcpu_clear_cpuid_feature(self->vcpu, X86_FEATURE_LBR_PMC_FREEZE);
			vcpu_set_cpuid_property(self->vcpu, X86_PROPERTY_LBR_STACK_SIZE, 0);
		}
	}
	debugctl_vector = host_cpu_is_intel || kvm_cpu_has(X86_FEATURE_LBRV) ? GP_VECTOR : 0;
	sync_global_to_guest(self->vm, debugctl_vector);
}

FIXTURE_TEARDOWN(no_branches)
{
	kvm_vm_free(self->vm);
}

/* Seen to fail when only KVM's code of a PMU takes the stack from a guest: one without has it. */
TEST_F(no_branches, each_register_faults)
{
	EXPECT_FALSE(run_to_io(self->vcpu));
}

/* The same. */
TEST_F(no_branches, userspace_cannot_enable_it)
{
	EXPECT_EQ(0, _vcpu_set_msr(self->vcpu, lbr_control(), recording_of(0)));
	EXPECT_EQ(0, _vcpu_set_msr(self->vcpu, lbr_from(0), 0x1000));
}

TEST_HARNESS_MAIN
