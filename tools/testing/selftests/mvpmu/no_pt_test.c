// SPDX-License-Identifier: GPL-2.0
/*
 * Guests that have no Intel PT of their own: with mvpmu loaded without
 * pt=host_guest, with KVM's C code, and on CPUs that have none.
 */
#include "guest_pt.h"
#include "harness.h"

static void guest_has_none(void)
{
	unsigned int i;
	u64 value;

	for (i = 0; i < ARRAY_SIZE(pt_msrs); i++) {
		__GUEST_ASSERT(rdmsr_safe(pt_msrs[i], &value) == GP_VECTOR,
			       "RDMSR(0x%x)", pt_msrs[i]);
		__GUEST_ASSERT(wrmsr_safe(pt_msrs[i], 0) == GP_VECTOR,
			       "WRMSR(0x%x)", pt_msrs[i]);
	}
	GUEST_ASSERT_EQ(wrmsr_safe(MSR_IA32_RTIT_CTL, CTL_TRACE_EN | CTL_TOPA | CTL_OS),
			GP_VECTOR);
	GUEST_DONE();
}

FIXTURE(no_pt) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(no_pt)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
	self->vm = pmu_vm_create(&self->vcpu, guest_has_none);
}

FIXTURE_TEARDOWN(no_pt)
{
	kvm_vm_free(self->vm);
}

/* Seen to fail with pt=host_guest. */
TEST_F(no_pt, is_announced)
{
	EXPECT_FALSE(kvm_cpu_has(X86_FEATURE_PT));
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

TEST_F(no_pt, is_to_be_had_by_cpuid)
{
	vcpu_set_cpuid_feature(self->vcpu, X86_FEATURE_PT);
	EXPECT_EQ(0, _vcpu_set_msr(self->vcpu, MSR_IA32_RTIT_CTL, CTL_TRACE_EN | CTL_TOPA));
	EXPECT_EQ(0, _vcpu_set_msr(self->vcpu, MSR_IA32_RTIT_OUTPUT_BASE, 0x1000));
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* What the list of MSRs to save names can be read, and 0 be written back. */
TEST_F(no_pt, has_anything_to_be_saved)
{
	const struct kvm_msr_list *list = kvm_get_msr_index_list();
	unsigned int i, n;

	for (i = 0; i < list->nmsrs; i++) {
		for (n = 0; n < ARRAY_SIZE(pt_msrs); n++) {
			if (list->indices[i] != pt_msrs[n])
				continue;
			EXPECT_EQ(0, vcpu_get_msr(self->vcpu, pt_msrs[n]));
			EXPECT_EQ(1, _vcpu_set_msr(self->vcpu, pt_msrs[n], 0));
		}
	}
}

/* If mvpmu is there it says what it does, and why it cannot do what it was asked for. */
TEST_F(no_pt, is_accounted_for)
{
	char line[128], mode[16], why[96];
	FILE *file = fopen("/sys/kernel/debug/mvpmu/capability", "r");
	bool found = false;

	if (!file)
		return;
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, "pt: ", 4))
			continue;
		found = true;
		/* "off, " and a reason, or the parameter. */
		EXPECT_EQ(1 + pt_mode_is("host_guest"),
			  sscanf(line, "pt: %15[^,\n], %95[^\n]", mode, why));
		EXPECT_TRUE(pt_mode_is("host_guest") ? !strcmp(mode, "off") : pt_mode_is(mode));
	}
	EXPECT_TRUE(found);
	fclose(file);
}

TEST_HARNESS_MAIN
