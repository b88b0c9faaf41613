// SPDX-License-Identifier: GPL-2.0
/*
 * A guest that counts is moved to a new VM, with all that userspace can save.  It
 * counts exactly, and gets each PMI once, whatever it was about to do.  Between
 * providers: see migrate.c.
 */
#include "apic.h"
#include "harness.h"
#include "migrate.h"
#include "nested.h"

#define NR_LOOPS	25
#define NR_EXITS	(2 * NR_LOOPS)

static const struct payload pio = PAYLOAD_PIO;

FIXTURE(migrate) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(migrate)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN(migrate)
{
	if (self->vm)
		kvm_vm_free(self->vm);
}

static void move_at_each_exit(struct kvm_vcpu **vcpu, unsigned int nr, void *moves)
{
	migrate(vcpu);
	++*(unsigned int *)moves;
}

/* To the guest. */
static u64 lvtpc;

static unsigned int nr_pmis;

static void guest_pmi(struct ex_regs *regs)
{
	nr_pmis++;
	wrmsr(vendor->global_status_clear, counter_bit(0));
	x2apic_write_reg(APIC_EOI, 0);
}

static void guest_nmi(struct ex_regs *regs)
{
	nr_pmis++;
	wrmsr(vendor->global_status_clear, counter_bit(0));
}

/* The instruction that overflows is the first OUT: KVM counts it, and has a PMI to deliver. */
static void guest_overflow_in_kvm(void)
{
	u64 before = pio.once[INSTRUCTIONS] + (lvtpc >> 32);

	x2apic_enable();
	x2apic_write_reg(APIC_LVTPC, (u32)lvtpc);
	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT | PMC_PMI, overflow_in(before + 1));
	pio.measure(counter_bit(0), NR_LOOPS);
	asm volatile("sti; nop; cli");
	GUEST_ASSERT_EQ(1, nr_pmis);
	/* It was delivered to the APIC, which masks LVTPC on Intel. */
	__GUEST_ASSERT(!vendor->pmi_masks_lvtpc || x2apic_read_reg(APIC_LVTPC) >> 16 & 1,
		       "LVTPC is not masked");
	GUEST_DONE();
}

static void move_at_the_first_exit(struct kvm_vcpu **vcpu, unsigned int nr, void *data)
{
	if (!nr)
		migrate(vcpu);
}

FIXTURE(migrate_pmi) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(migrate_pmi) {
	u64 lvtpc;
};

FIXTURE_VARIANT_ADD(migrate_pmi, vector) {
	.lvtpc = PMI_VECTOR,
};

FIXTURE_VARIANT_ADD(migrate_pmi, nmi) {
	.lvtpc = APIC_DM_NMI,
};

FIXTURE_SETUP(migrate_pmi)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN(migrate_pmi)
{
	if (self->vm)
		kvm_vm_free(self->vm);
}

/* Seen to fail when KVM keeps the PMI as a request of its own. */
TEST_F(migrate_pmi, that_is_not_delivered_yet_is_not_lost)
{
	self->vm = pmu_vm_create(&self->vcpu, guest_overflow_in_kvm);
	vm_install_exception_handler(self->vm, PMI_VECTOR, guest_pmi);
	vm_install_exception_handler(self->vm, NMI_VECTOR, guest_nmi);
	/* The WRMSR that starts the counter is counted where it exits. */
	lvtpc = variant->lvtpc | (u64)!guest_has_all_counters() << 32;
	sync_global_to_guest(self->vm, lvtpc);
	EXPECT_FALSE(run_guest_io(&self->vcpu, NULL, move_at_the_first_exit, NULL));
}

static u64 first_value(unsigned int pmc)
{
	return pmc;
}

static void guest_count_all(void)
{
	u64 enable;

	pmu_reset();
	/* Where no counter is in use. */
	GUEST_SYNC(0);
	enable = pmc_program_all(INSTRUCTIONS, first_value);
	pio.measure(enable, NR_LOOPS);
	pmc_check_all(enable, first_value, payload_count(&pio, INSTRUCTIONS, NR_LOOPS));
	GUEST_DONE();
}

/* Has to fail when a put leaves KVM with the value of an earlier one. */
TEST_F(migrate, fifty_times_and_all_counters_are_exact)
{
	unsigned int moves = 0;
	u64 phase;

	self->vm = pmu_vm_create(&self->vcpu, guest_count_all);
	ASSERT_TRUE(run_guest(self->vcpu, &phase));
	migrate(&self->vcpu);
	EXPECT_FALSE(run_guest_io(&self->vcpu, NULL, move_at_each_exit, &moves));
	EXPECT_EQ(NR_EXITS, moves);
}

/* L2's, which exits to userspace; r8 is the number of loops. */
extern char l2_pio_svm[], l2_pio_vmx[];

asm(
	".pushsection .text\n"
	"l2_pio_svm: mov $" __stringify(TEST_PORT) ", %edx\n"
	"1: out %al, %dx\n\t"
	"in %dx, %al\n\t"
	"dec %r8\n\t"
	"jnz 1b\n\t"
	"vmmcall\n"
	"l2_pio_vmx: mov $" __stringify(TEST_PORT) ", %edx\n"
	"1: out %al, %dx\n\t"
	"in %dx, %al\n\t"
	"dec %r8\n\t"
	"jnz 1b\n\t"
	"vmcall\n"
	".popsection\n");

static void guest_count_l2(void)
{
	pmu_reset();
	prepare_l2(host_cpu_is_intel ? l2_pio_vmx : l2_pio_svm);
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	run_l2(counter_bit(0), NR_LOOPS);
	GUEST_SYNC(pmc_read(0));
	GUEST_DONE();
}

/* What is counted with and without moves. */
static u64 count_of_l2(struct kvm_vm **vm, struct kvm_vcpu **vcpu, io_hook on_io)
{
	unsigned int moves = 0;
	u64 count;

	*vm = pmu_vm_create(vcpu, guest_count_l2);
	nested_alloc(*vm);
	TEST_ASSERT(run_guest_io(vcpu, &count, on_io, &moves), "The guest has to count");
	TEST_ASSERT_EQ(moves, on_io ? NR_EXITS : 0);
	kvm_vm_free(*vm);
	*vm = NULL;
	return count;
}

/* Has to fail when the counters are not loaded at an entry of L2. */
TEST_F(migrate, fifty_times_in_l2_and_its_count_is_the_same)
{
	u64 count;

	if (!has_nested())
		SKIP(return, "KVM is loaded with nested=0");
	count = count_of_l2(&self->vm, &self->vcpu, NULL);
	EXPECT_LT(4 * NR_LOOPS, count);
	EXPECT_EQ(count, count_of_l2(&self->vm, &self->vcpu, move_at_each_exit));
}

TEST_HARNESS_MAIN
