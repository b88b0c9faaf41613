// SPDX-License-Identifier: GPL-2.0
/*
 * The registers of a guest's Intel PT: its own, whoever else traces, and such as
 * the CPU has, whatever userspace does to CPUID.
 */
#include "guest_pt.h"
#include "harness.h"
#include "nested.h"

#define NR_EXITS	200

/* Physical addresses, for the guest. */
static u64 output_gpa, table_gpa;

static u8 __aligned(4096) output[4096];
static u64 __aligned(4096) table[512];

/* Enabled, but neither for the kernel nor for users: nothing is written. */
#define CTL_NOTHING	(CTL_TRACE_EN | CTL_TOPA | CTL_BRANCH_EN)

static void exit_by_cpuid(void)
{
	u32 eax, ebx, ecx, edx;

	__cpuid(0, 0, &eax, &ebx, &ecx, &edx);
}

/* Guest: a table of one page, and what it has to read in the registers. */
static void prepare_output(void)
{
	table[0] = output_gpa;
	table[1] = table_gpa | TOPA_END;
	wrmsr(MSR_IA32_RTIT_STATUS, 0);
	wrmsr(MSR_IA32_RTIT_OUTPUT_BASE, table_gpa);
	wrmsr(MSR_IA32_RTIT_OUTPUT_MASK, 0);
}

/* Guest: the registers are as it has left them. */
static void check_registers(u64 ctl)
{
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_CTL), ctl);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_OUTPUT_BASE), table_gpa);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_OUTPUT_MASK) & 0xffffffff, 0x7f);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_CR3_MATCH), 0x12340);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_ADDR0_A), 0x1000);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_ADDR0_B), 0x2000);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_STATUS) & (STATUS_ERROR | STATUS_STOPPED), 0);
}

static void write_registers(void)
{
	prepare_output();
	wrmsr(MSR_IA32_RTIT_CR3_MATCH, 0x12340);
	wrmsr(MSR_IA32_RTIT_ADDR0_A, 0x1000);
	wrmsr(MSR_IA32_RTIT_ADDR0_B, 0x2000);
}

#define CTL_KEPT	(CTL_NOTHING | CTL_CR3_FILTER | CTL_ADDR_CFG(0, 1))

static void guest_keeps(void)
{
	const u64 ctl = CTL_KEPT;
	unsigned int i;

	write_registers();
	check_registers(0);
	wrmsr(MSR_IA32_RTIT_CTL, ctl);
	for (i = 0; i < NR_EXITS; i++) {
		exit_by_cpuid();
		check_registers(ctl);
		if (i % 16 == 0)
			GUEST_SYNC(i);
	}
	wrmsr(MSR_IA32_RTIT_CTL, 0);
	check_registers(0);
	GUEST_DONE();
}

/* A trace goes on at each entry: how far it has come, to userspace, never is less. */
static void guest_comes_along(void)
{
	unsigned int i;
	u64 mask;

	prepare_output();
	wrmsr(MSR_IA32_RTIT_CTL, CTL_NOTHING);
	mask = rdmsr(MSR_IA32_RTIT_OUTPUT_MASK);
	GUEST_ASSERT_NE(mask >> 32, 0);
	for (i = 0; i < NR_EXITS / 10; i++) {
		GUEST_SYNC(mask);
		GUEST_ASSERT(rdmsr(MSR_IA32_RTIT_OUTPUT_MASK) >= mask);
		mask = rdmsr(MSR_IA32_RTIT_OUTPUT_MASK);
	}
	wrmsr(MSR_IA32_RTIT_CTL, 0);
	GUEST_DONE();
}

static void guest_is_refused(void)
{
	static const u64 reserved[] = {
		BIT_ULL(4), BIT_ULL(5), CTL_FABRIC_EN, CTL_MTC_EN, BIT_ULL(12),
		BIT_ULL(18), BIT_ULL(23), BIT_ULL(31), BIT_ULL(48), BIT_ULL(63),
		CTL_ADDR_CFG(0, 3), CTL_ADDR_CFG(2, 1), CTL_ADDR_CFG(3, 1),
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(reserved); i++)
		__GUEST_ASSERT(wrmsr_safe(MSR_IA32_RTIT_CTL, reserved[i]) == GP_VECTOR,
			       "RTIT_CTL = 0x%lx", reserved[i]);
	GUEST_ASSERT_EQ(wrmsr_safe(MSR_IA32_RTIT_STATUS, BIT_ULL(3)), GP_VECTOR);
	GUEST_ASSERT_EQ(wrmsr_safe(MSR_IA32_RTIT_OUTPUT_BASE, 0x40), GP_VECTOR);
	GUEST_ASSERT_EQ(wrmsr_safe(MSR_IA32_RTIT_OUTPUT_BASE, BIT_ULL(52)), GP_VECTOR);
	GUEST_ASSERT_EQ(wrmsr_safe(MSR_IA32_RTIT_CR3_MATCH, 0x10), GP_VECTOR);
	GUEST_ASSERT_EQ(wrmsr_safe(MSR_IA32_RTIT_ADDR0_A, BIT_ULL(62)), GP_VECTOR);
	GUEST_ASSERT_EQ(wrmsr_safe(MSR_IA32_RTIT_ADDR2_A, 0), GP_VECTOR);

	write_registers();
	wrmsr(MSR_IA32_RTIT_CTL, CTL_NOTHING);
	for (i = 1; i < 7; i++)
		__GUEST_ASSERT(wrmsr_safe(pt_msrs[i], 0) == GP_VECTOR,
			       "MSR 0x%x while TraceEn is set", pt_msrs[i]);
	GUEST_ASSERT_EQ(wrmsr_safe(MSR_IA32_RTIT_CTL, CTL_NOTHING | CTL_OS), GP_VECTOR);
	wrmsr(MSR_IA32_RTIT_CTL, CTL_NOTHING);
	wrmsr(MSR_IA32_RTIT_CTL, 0);
	check_registers(0);
	GUEST_DONE();
}

/* Guest: those of another one. */
static void guest_other(void)
{
	unsigned int i;

	for (i = 0;; i++) {
		prepare_output();
		wrmsr(MSR_IA32_RTIT_CR3_MATCH, 0x55540);
		wrmsr(MSR_IA32_RTIT_ADDR0_A, 0x7000);
		wrmsr(MSR_IA32_RTIT_ADDR0_B, 0x8000);
		wrmsr(MSR_IA32_RTIT_CTL, CTL_NOTHING | CTL_ADDR_CFG(0, 2));
		exit_by_cpuid();
		wrmsr(MSR_IA32_RTIT_CTL, 0);
		GUEST_SYNC(i);
	}
}

static void guest_runs(void)
{
	unsigned int i;

	for (i = 0; i < NR_EXITS; i++)
		exit_by_cpuid();
	GUEST_DONE();
}

/* Guest: PT is gone, though it was there when userspace set it up. */
static void guest_without(void)
{
	unsigned int i;
	u64 value;

	for (i = 0; i < ARRAY_SIZE(pt_msrs); i++) {
		GUEST_ASSERT_EQ(rdmsr_safe(pt_msrs[i], &value), GP_VECTOR);
		GUEST_ASSERT_EQ(wrmsr_safe(pt_msrs[i], 0), GP_VECTOR);
	}
	guest_runs();
}

extern char pt_l2[];

/* L2 has none: all of L1's is #GP in VMX operation anyway. */
asm(
	".pushsection .text\n"
	"pt_l2: xor %eax, %eax\n\t"
	"cpuid\n\t"
	"vmcall\n"
	".popsection\n");

/* L1 that traces when it enters VMX operation does not trace afterwards. */
static void guest_nests(void)
{
	unsigned int i;

	write_registers();
	wrmsr(MSR_IA32_RTIT_CTL, CTL_NOTHING | CTL_OS);
	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_CTL), 0);
	GUEST_ASSERT_EQ(wrmsr_safe(MSR_IA32_RTIT_CTL, CTL_NOTHING), GP_VECTOR);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_VMX_MISC) & BIT_ULL(14), 0);
	GUEST_ASSERT(load_vmcs(vmx));
	nested_vmx_setup(vmx, pt_l2, &l2_stack[L2_STACK]);
	for (i = 0; i < 3; i++) {
		GUEST_ASSERT(!(i ? vmresume() : vmlaunch()));
		/* The CPUID and then the VMCALL of L2. */
		GUEST_ASSERT_EQ(vmreadz(VM_EXIT_REASON),
				i ? EXIT_REASON_VMCALL : EXIT_REASON_CPUID);
		if (!i)
			vmwrite(GUEST_RIP, vmreadz(GUEST_RIP) + 2);
	}
	asm volatile("vmxoff");
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_CTL), 0);
	prepare_output();
	wrmsr(MSR_IA32_RTIT_CTL, CTL_NOTHING);
	exit_by_cpuid();
	wrmsr(MSR_IA32_RTIT_CTL, 0);
	GUEST_DONE();
}

FIXTURE(guest_pt) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(guest_pt)
{
	const char *missing = pt_missing();

	if (missing)
		SKIP(return, "%s", missing);
	pin_self_to_cpu(0);
}

FIXTURE_TEARDOWN(guest_pt)
{
	if (self->vm)
		kvm_vm_free(self->vm);
}

static struct kvm_vm *create_vm(struct kvm_vcpu **vcpu, void *code)
{
	struct kvm_vm *vm = pmu_vm_create(vcpu, code);

	output_gpa = addr_gva2gpa(vm, (gva_t)output);
	table_gpa = addr_gva2gpa(vm, (gva_t)table);
	sync_global_to_guest(vm, output_gpa);
	sync_global_to_guest(vm, table_gpa);
	return vm;
}

TEST_F(guest_pt, is_what_kvm_knows_and_the_cpu_has)
{
	const struct kvm_cpuid_entry2 *entry;

	self->vm = create_vm(&self->vcpu, guest_runs);
	EXPECT_TRUE(kvm_cpu_has(X86_FEATURE_PT));
	entry = get_cpuid_entry(kvm_get_supported_cpuid(), PT_LEAF, 0);
	EXPECT_EQ(1, entry->eax);
	EXPECT_EQ(0, entry->ebx & ~0x1bf);
	EXPECT_EQ(0, entry->ecx & ~(BIT(31) | 7));
	EXPECT_EQ(0, entry->edx);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* In turns with another guest, on two CPUs if there are. */
TEST_F(guest_pt, keeps_its_registers)
{
	struct kvm_vcpu *other;
	struct kvm_vm *other_vm;

	self->vm = create_vm(&self->vcpu, guest_keeps);
	other_vm = create_vm(&other, guest_other);
	/* The addresses of both are the same. */
	while (run_guest(self->vcpu, NULL)) {
		pin_self_to_cpu(sysconf(_SC_NPROCESSORS_ONLN) - 1);
		EXPECT_TRUE(run_guest(other, NULL));
	}
	kvm_vm_free(other_vm);
}

/*
 * From a CPU to the other, where it is read, too, while what it was left with is in the
 * first.  Seen to fail when that is not brought to memory as the vCPU leaves the CPU.
 */
TEST_F(guest_pt, is_read_where_it_is_not)
{
	unsigned int turn = 0;
	u64 mask;

	self->vm = create_vm(&self->vcpu, guest_comes_along);
	while (run_guest(self->vcpu, &mask)) {
		pin_self_to_cpu(++turn % sysconf(_SC_NPROCESSORS_ONLN));
		EXPECT_LE(mask, vcpu_get_msr(self->vcpu, MSR_IA32_RTIT_OUTPUT_MASK));
		EXPECT_EQ(table_gpa, vcpu_get_msr(self->vcpu, MSR_IA32_RTIT_OUTPUT_BASE));
	}
	EXPECT_EQ(NR_EXITS / 10, turn);
}

TEST_F(guest_pt, faults_as_the_cpu_does)
{
	self->vm = create_vm(&self->vcpu, guest_is_refused);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

TEST_F(guest_pt, is_off_in_vmx_operation)
{
	if (!has_nested())
		SKIP(return, "no nested VMX");
	self->vm = create_vm(&self->vcpu, guest_nests);
	nested_alloc(self->vm);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* By the list of KVM_GET_MSR_INDEX_LIST, which has RTIT_CTL first. */
TEST_F(guest_pt, is_saved_and_restored)
{
	struct kvm_x86_state *state;
	unsigned int i;

	self->vm = create_vm(&self->vcpu, guest_keeps);
	for (i = 0; i < 5; i++) {
		EXPECT_TRUE(run_guest(self->vcpu, NULL));
		EXPECT_EQ(CTL_KEPT, vcpu_get_msr(self->vcpu, MSR_IA32_RTIT_CTL));
		EXPECT_EQ(table_gpa, vcpu_get_msr(self->vcpu, MSR_IA32_RTIT_OUTPUT_BASE));

		state = vcpu_save_state(self->vcpu);
		kvm_vm_release(self->vm);
		self->vcpu = vm_recreate_with_one_vcpu(self->vm);
		vcpu_load_state(self->vcpu, state);
		kvm_x86_state_cleanup(state);
	}
	while (run_guest(self->vcpu, NULL))
		;
}

/* Userspace gives a PT that the CPU does not have. */
TEST_F(guest_pt, is_no_more_than_the_cpu_has)
{
	struct kvm_cpuid_entry2 *entry;

	self->vm = create_vm(&self->vcpu, guest_is_refused);
	entry = vcpu_get_cpuid_entry(self->vcpu, PT_LEAF);
	entry->ebx = entry->ecx = ~0;
	entry = __vcpu_get_cpuid_entry(self->vcpu, PT_LEAF, 1);
	entry->eax = 0xffff0004;
	entry->ebx = ~0;
	vcpu_set_cpuid(self->vcpu);
	EXPECT_EQ(0, _vcpu_set_msr(self->vcpu, MSR_IA32_RTIT_CTL, CTL_NOTHING | CTL_MTC_EN));
	EXPECT_EQ(0, _vcpu_set_msr(self->vcpu, MSR_IA32_RTIT_CTL, CTL_NOTHING | CTL_FABRIC_EN));
	EXPECT_EQ(0, _vcpu_set_msr(self->vcpu, MSR_IA32_RTIT_ADDR2_A, 0x1000));
	EXPECT_EQ(0, _vcpu_set_msr(self->vcpu, MSR_IA32_RTIT_CR3_MATCH, 1));
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* Userspace changes its mind after it has had the guest trace. */
TEST_F(guest_pt, follows_cpuid)
{
	u64 ctl = CTL_NOTHING | CTL_OS | CTL_ADDR_CFG(1, 1);

	self->vm = create_vm(&self->vcpu, guest_without);
	vcpu_set_msr(self->vcpu, MSR_IA32_RTIT_OUTPUT_BASE, table_gpa);
	vcpu_set_msr(self->vcpu, MSR_IA32_RTIT_CTL, ctl);
	EXPECT_EQ(ctl, vcpu_get_msr(self->vcpu, MSR_IA32_RTIT_CTL));

	/* A range less: what needs it is off. */
	vcpu_set_cpuid_property(self->vcpu, X86_PROPERTY_PT_RANGES, 1);
	EXPECT_EQ(0, vcpu_get_msr(self->vcpu, MSR_IA32_RTIT_CTL));
	EXPECT_EQ(0, _vcpu_set_msr(self->vcpu, MSR_IA32_RTIT_CTL, ctl));
	vcpu_set_msr(self->vcpu, MSR_IA32_RTIT_CTL, CTL_NOTHING | CTL_OS);

	vcpu_clear_cpuid_feature(self->vcpu, X86_FEATURE_PT);
	EXPECT_EQ(0, vcpu_get_msr(self->vcpu, MSR_IA32_RTIT_CTL));
	EXPECT_EQ(0, _vcpu_set_msr(self->vcpu, MSR_IA32_RTIT_CTL, CTL_NOTHING));
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

TEST_F(guest_pt, needs_a_pmu)
{
	self->vm = pmu_vm_create_with(&self->vcpu, guest_without, KVM_PMU_CAP_DISABLE);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

TEST_HARNESS_MAIN
