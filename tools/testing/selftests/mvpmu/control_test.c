// SPDX-License-Identifier: GPL-2.0
/*
 * A counter counts when, and only when, its selector (or FIXED_CTR_CTRL) and
 * GLOBAL_CTRL enable it and it is set for the current privilege level.
 */
#include "harness.h"
#include "payload.h"

#define NR_LOOPS	20

enum { LOOP, CPUID_EXITS, PIO_EXITS, MMIO_EXITS };

static const struct payload payloads[] = {
	[LOOP]		= PAYLOAD_LOOP,
	[CPUID_EXITS]	= PAYLOAD_CPUID,
	[PIO_EXITS]	= PAYLOAD_PIO,
	[MMIO_EXITS]	= PAYLOAD_MMIO,
};

struct control {
	const char *name;
	u64 flags;
	bool globally;
	bool counts;
};

static const struct control controls[] = {
	{ "OS, enabled",		PMC_OS | PMC_ENABLE,		true,	true },
	{ "USR and OS, enabled",	PMC_USR | PMC_OS | PMC_ENABLE,	true,	true },
	{ "selector off",		PMC_USR | PMC_OS,		true,	false },
	{ "GLOBAL_CTRL off",		PMC_USR | PMC_OS | PMC_ENABLE,	false,	false },
	{ "USR in CPL 0",		PMC_USR | PMC_ENABLE,		true,	false },
	{ "neither USR nor OS",		PMC_ENABLE,			true,	false },
};

static void guest_check_control(const struct control *control,
				const struct payload *payload, unsigned int pmc)
{
	u64 start = 1000 + pmc, expected = start;
	unsigned int other = pmc ? 0 : 1;
	u64 enable = counter_bit(other);

	if (control->globally)
		enable |= counter_bit(pmc);
	if (control->counts)
		expected += payload_count(payload, INSTRUCTIONS, NR_LOOPS);

	/* Another counter counts, so that the PMU as a whole is on. */
	pmu_reset();
	pmc_program(pmc, INSTRUCTIONS, control->flags, start);
	pmc_program(other, INSTRUCTIONS, PMC_COUNT, 0);
	payload->measure(enable, NR_LOOPS);

	__GUEST_ASSERT(pmc_read(pmc) == expected,
		       "%s, %s, counter %u: expected %lu, counted %lu",
		       control->name, payload->name, pmc, expected, pmc_read(pmc));
	GUEST_ASSERT_EQ(pmc_read(other), payload_count(payload, INSTRUCTIONS, NR_LOOPS));
}

static void guest_controls(void)
{
	const struct payload *payload;
	const struct control *control;
	unsigned int pmc;

	for (control = controls; control < controls + ARRAY_SIZE(controls); control++)
		for (payload = payloads; payload < payloads + ARRAY_SIZE(payloads); payload++)
			for (pmc = 0; pmc < nr_counters(); pmc++)
				if (pmc_counts(pmc, INSTRUCTIONS))
					guest_check_control(control, payload, pmc);
	GUEST_DONE();
}

/* Enough for a provider to see that GLOBAL_CTRL does not change. */
#define NR_STEADY	200

static void guest_global_control_after_long(void)
{
	static const u8 enables[] = { 1, 0, 2, 3, 0, 0, 1 };
	u64 expected[2] = {};
	unsigned int i, pmc;

	pmu_reset();
	for (pmc = 0; pmc < 2; pmc++)
		pmc_program(pmc, INSTRUCTIONS, PMC_COUNT, 0);

	for (i = 0; i < ARRAY_SIZE(enables); i++) {
		payloads[CPUID_EXITS].measure(enables[i], NR_STEADY);

		for (pmc = 0; pmc < 2; pmc++) {
			if (enables[i] & counter_bit(pmc))
				expected[pmc] += payload_count(&payloads[CPUID_EXITS],
							       INSTRUCTIONS, NR_STEADY);
			__GUEST_ASSERT(pmc_read(pmc) == expected[pmc],
				       "step %u, counter %u: expected %lu, counted %lu",
				       i, pmc, expected[pmc], pmc_read(pmc));
		}
		GUEST_ASSERT_EQ(rdmsr(vendor->global_control), 0);
	}
	GUEST_DONE();
}

/*
 * The guest runs in CPL 3 from its first instruction on, so the host sets the
 * counters up, and reads them.
 */
void guest_user(void);
asm(".pushsection .text\n\t"
	"guest_user:\n\t"
	"mov $" __stringify(NR_LOOPS) ", %r8\n\t"
	"1: xor %eax, %eax\n\t"
	"cpuid\n\t"
	"dec %r8\n\t"
	"jnz 1b\n\t"
	"mov $" __stringify(TEST_PORT) ", %edx\n\t"
	"out %al, %dx\n\t"
	".popsection");

/* What is complete at OUT: mov, the loop, mov. */
#define USER_INSTRUCTIONS	(1 + 4 * NR_LOOPS + 1)

/*
 * Nothing counts: what the guest reads are its own values still.  With @enabled a
 * counter waits for CPL 3, which never comes: the values are in hardware.
 */
static void guest_values_at_rest(bool enabled)
{
	unsigned int pmc, i;
	u64 enable = 0;

	pmu_reset();
	if (enabled) {
		pmc_program(0, INSTRUCTIONS, PMC_USR | PMC_ENABLE, 0);
		enable = counter_bit(0);
	}
	for (pmc = 0; pmc < nr_counters(); pmc++)
		wrmsr(counter_msr(pmc), 0x123450000 + pmc);
	if (vendor->global_status_set)
		wrmsr(vendor->global_status_set, counter_bit(1));

	for (i = 0; i < ARRAY_SIZE(payloads); i++) {
		payloads[i].measure(enable, NR_LOOPS);

		for (pmc = 0; pmc < nr_counters(); pmc++) {
			GUEST_ASSERT_EQ(pmc_read(pmc), 0x123450000 + pmc);
			GUEST_ASSERT_EQ(rdmsr(counter_msr(pmc)), 0x123450000 + pmc);
		}
		GUEST_ASSERT_EQ(rdmsr(vendor->global_status),
				vendor->global_status_set ? counter_bit(1) : 0);
		GUEST_ASSERT_EQ(rdmsr(vendor->global_control), 0);
	}
	GUEST_DONE();
}

/* As after RESET: values 0, and the general purpose counters enabled globally. */
static void guest_fresh(void)
{
	unsigned int pmc;

	for (pmc = 0; pmc < nr_counters(); pmc++) {
		GUEST_ASSERT_EQ(pmc_read(pmc), 0);
		if (!pmc_is_fixed(pmc))
			GUEST_ASSERT_EQ(rdmsr(selector_msr(pmc)), 0);
	}
	if (vendor->fixed_control)
		GUEST_ASSERT_EQ(rdmsr(vendor->fixed_control), 0);
	GUEST_ASSERT_EQ(rdmsr(vendor->global_status), 0);
	GUEST_ASSERT_EQ(rdmsr(vendor->global_control), BIT_ULL(shape.nr_gp) - 1);
	GUEST_SYNC(0);

	/* Leave everything behind that can be left behind. */
	for (pmc = 0; pmc < nr_counters(); pmc++)
		pmc_program(pmc, INSTRUCTIONS, PMC_USR | PMC_COUNT, overflow_in(10 + pmc));
	measure_loop(BIT_ULL(shape.nr_gp) - 1, NR_LOOPS);
	wrmsr(vendor->global_control, BIT_ULL(shape.nr_gp) - 1);
	GUEST_DONE();
}

FIXTURE(control) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(control)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create(&self->vcpu, NULL);
	map_mmio(self->vm);
}

FIXTURE_TEARDOWN(control)
{
	kvm_vm_free(self->vm);
}

/*
 * Seen to fail when a load writes all ones to GLOBAL_CTRL, and when an
 * emulated instruction is counted without regard to USR and OS.
 */
TEST_F(control, each_enable_bit_is_needed)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_controls);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/*
 * Seen to fail when AMD writes of GLOBAL_CTL are neither intercepted nor read
 * after a while.
 */
TEST_F(control, global_control_may_change_after_a_long_time)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_global_control_after_long);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/*
 * Seen to fail when an emulated instruction is counted without regard to USR
 * and OS, and when a load sets USR in each selector.
 */
TEST_F(control, usr_counts_in_user_mode_and_os_does_not)
{
	static const u64 modes[] = { PMC_USR, PMC_OS, PMC_USR | PMC_OS };
	unsigned int pmc;

	vcpu_arch_set_entry_point(self->vcpu, guest_user);
	enter_user_mode(self->vcpu);
	for (pmc = 0; pmc < ARRAY_SIZE(modes); pmc++)
		vcpu_set_msr(self->vcpu, selector_msr(pmc),
			     vendor->event[INSTRUCTIONS] | PMC_ENABLE | modes[pmc]);

	vcpu_run(self->vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(self->vcpu, KVM_EXIT_IO);
	ASSERT_EQ(TEST_PORT, self->vcpu->run->io.port);
	for (pmc = 0; pmc < ARRAY_SIZE(modes); pmc++)
		EXPECT_EQ(modes[pmc] & PMC_USR ? USER_INSTRUCTIONS : 0,
			  vcpu_get_msr(self->vcpu, counter_msr(pmc)));
}

TEST_F(control, values_at_rest_survive_exits)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_values_at_rest);
	vcpu_args_set(self->vcpu, 1, false);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* Seen to fail when a load writes only counters that are enabled. */
TEST_F(control, values_at_rest_survive_exits_beside_an_enabled_counter)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_values_at_rest);
	vcpu_args_set(self->vcpu, 1, true);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	/* The exits to userspace of port I/O and MMIO. */
	EXPECT_LE(4 * NR_LOOPS, pmu_loads(self->vcpu));
}

/*
 * The second guest runs on the same CPU while the first one is stopped in the
 * middle of counting.  Seen to fail when a put leaves the counters and a load
 * writes only those that are not 0.
 */
TEST_F(control, fresh_guest_reads_nothing_of_another)
{
	struct kvm_vcpu *other;
	struct kvm_vm *vm;

	pin_self_to_any_cpu();
	vcpu_arch_set_entry_point(self->vcpu, guest_fresh);
	EXPECT_TRUE(run_guest(self->vcpu, NULL));
	EXPECT_FALSE(run_guest(self->vcpu, NULL));

	vm = pmu_vm_create(&other, guest_fresh);
	EXPECT_TRUE(run_guest(other, NULL));
	kvm_vm_free(vm);
}

TEST_HARNESS_MAIN
