// SPDX-License-Identifier: GPL-2.0
/*
 * The guest writes its event selectors, the host decides what reaches the
 * hardware: the event filter of KVM_SET_PMU_EVENT_FILTER, and on AMD which of
 * host and guest is counted.
 */
#include "harness.h"
#include "payload.h"

#define NR_EXITS	30

enum { LOOP, CPUID_EXITS, PIO_EXITS };

static const struct payload payloads[] = {
	[LOOP]		= PAYLOAD_LOOP,
	[CPUID_EXITS]	= PAYLOAD_CPUID,
	[PIO_EXITS]	= PAYLOAD_PIO,
};

static void guest_check(const struct payload *payload, unsigned int pmc, u64 expected)
{
	__GUEST_ASSERT(pmc_read(pmc) == expected,
		       "%s, counter %u: expected %lu, counted %lu",
		       payload->name, pmc, expected, pmc_read(pmc));
}

static void set_filter(struct kvm_vm *vm, u32 action, u64 event, u32 fixed)
{
	struct {
		struct kvm_pmu_event_filter filter;
		u64 event;
	} one = {
		.filter = {
			.action = action,
			.nevents = 1,
			.fixed_counter_bitmap = fixed,
		},
		.event = event,
	};

	vm_ioctl(vm, KVM_SET_PMU_EVENT_FILTER, &one.filter);
}

/* Instructions are denied, branches are not. */
static void guest_one_event_denied(void)
{
	const struct payload *payload;
	unsigned int pmc;
	u64 enable;

	for (payload = payloads; payload < payloads + ARRAY_SIZE(payloads); payload++) {
		pmu_reset();
		for (pmc = 0, enable = 0; pmc < nr_counters(); pmc++) {
			if (!pmc_counts(pmc, INSTRUCTIONS))
				continue;
			pmc_program(pmc, pmc_counts(pmc, BRANCHES) ? pmc % 2 : INSTRUCTIONS,
				    PMC_COUNT, 0);
			enable |= counter_bit(pmc);
		}
		payload->measure(enable, NR_EXITS);

		for (pmc = 0; pmc < nr_counters(); pmc++)
			guest_check(payload, pmc,
				    !pmc_is_fixed(pmc) && pmc % 2 == BRANCHES ?
				    payload_count(payload, BRANCHES, NR_EXITS) : 0);
	}
	GUEST_DONE();
}

/* Denied from one exit to another, while it counts. */
#define FIRST_DENIED	8
#define FIRST_ALLOWED	18

static void guest_denied_for_a_while(void)
{
	const struct payload *payload = &payloads[PIO_EXITS];
	unsigned int pmc;

	/*
	 * Two exits make an iteration, and the instruction that exits is
	 * counted when it is complete: after the exit.
	 */
	u64 denied = (FIRST_ALLOWED - FIRST_DENIED) / 2 * payload->each[INSTRUCTIONS];
	u64 expected = payload_count(payload, INSTRUCTIONS, NR_EXITS) - denied;

	for (pmc = 0; pmc < nr_counters(); pmc++) {
		if (!pmc_counts(pmc, INSTRUCTIONS))
			continue;
		pmu_reset();
		GUEST_SYNC(0);
		pmc_program(pmc, INSTRUCTIONS, PMC_COUNT, 0);
		payload->measure(counter_bit(pmc), NR_EXITS);
		guest_check(payload, pmc, expected);
	}
	GUEST_DONE();
}

static void deny_for_a_while(struct kvm_vcpu **vcpu, unsigned int nr, void *data)
{
	if (nr == FIRST_DENIED)
		set_filter((*vcpu)->vm, KVM_PMU_EVENT_DENY, vendor->event[INSTRUCTIONS], 1);
	if (nr == FIRST_ALLOWED)
		set_filter((*vcpu)->vm, KVM_PMU_EVENT_ALLOW, vendor->event[INSTRUCTIONS], 1);
}

/* Userspace takes a write of a selector, while the counter is in hardware. */
static void guest_write_is_userspaces(void)
{
	u64 selector = vendor->event[INSTRUCTIONS] | PMC_COUNT;

	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(0));
	GUEST_SYNC(0);
	wrmsr(selector_msr(0), 0);
	GUEST_ASSERT_EQ(rdmsr(selector_msr(0)), selector);
	GUEST_DONE();
}

static void take_selector_writes(struct kvm_vm *vm)
{
	u8 denied = 0;
	struct kvm_msr_filter filter = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges[0] = {
			.flags = KVM_MSR_FILTER_WRITE,
			.nmsrs = 1,
			.base = selector_msr(0),
			.bitmap = &denied,
		},
	};

	vm_enable_cap(vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER);
	vm_ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter);
}

/*
 * A guest with nested virtualization has HostOnly and GuestOnly, one without
 * cannot set them.  With EFER.SVME clear a counter with either stands still.
 */
struct mode_bits {
	u64 bits;
	bool svme;
	bool counts;
};

#define HOST_ONLY	BIT_ULL(41)
#define GUEST_ONLY	BIT_ULL(40)

static const struct mode_bits mode_bits[] = {
	{ 0,				false,	true },
	{ HOST_ONLY,			false,	false },
	{ GUEST_ONLY,			false,	false },
	{ HOST_ONLY | GUEST_ONLY,	false,	false },
	{ 0,				true,	true },
	{ HOST_ONLY,			true,	true },
	{ GUEST_ONLY,			true,	false },
	{ HOST_ONLY | GUEST_ONLY,	true,	true },
};

static void guest_mode_bits(bool nested)
{
	const struct payload *payload;
	const struct mode_bits *mode;

	for (mode = mode_bits; mode < mode_bits + ARRAY_SIZE(mode_bits); mode++) {
		if (mode->svme && !nested)
			continue;
		if (nested)
			wrmsr(MSR_EFER, (rdmsr(MSR_EFER) & ~EFER_SVME) |
					(mode->svme ? EFER_SVME : 0));

		for (payload = payloads; payload < payloads + ARRAY_SIZE(payloads); payload++) {
			pmu_reset();
			pmc_program(0, INSTRUCTIONS, PMC_COUNT | mode->bits, 0);
			GUEST_ASSERT_EQ(rdmsr(selector_msr(0)),
					vendor->event[INSTRUCTIONS] | PMC_COUNT |
					(nested ? mode->bits : 0));
			payload->measure(counter_bit(0), NR_EXITS);
			__GUEST_ASSERT(pmc_read(0) == (mode->counts || !nested ?
				       payload_count(payload, INSTRUCTIONS, NR_EXITS) : 0),
				       "%s, bits 0x%lx, SVME %u: counted %lu", payload->name,
				       mode->bits, mode->svme, pmc_read(0));
		}
	}
	GUEST_DONE();
}

static void guest_nested_mode_bits(void)
{
	guest_mode_bits(true);
}

static void guest_plain_mode_bits(void)
{
	guest_mode_bits(false);
}

FIXTURE(filter) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(filter)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);

	self->vm = pmu_vm_create(&self->vcpu, NULL);
}

FIXTURE_TEARDOWN(filter)
{
	kvm_vm_free(self->vm);
}

/*
 * Seen to fail when the guest's own selector is loaded into hardware instead
 * of the filtered one.
 */
TEST_F(filter, denied_event_counts_0_and_others_are_exact)
{
	set_filter(self->vm, KVM_PMU_EVENT_DENY, vendor->event[INSTRUCTIONS], 1);
	vcpu_arch_set_entry_point(self->vcpu, guest_one_event_denied);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* Seen to fail with the same break. */
TEST_F(filter, event_not_allowed_counts_0_and_others_are_exact)
{
	set_filter(self->vm, KVM_PMU_EVENT_ALLOW, vendor->event[BRANCHES], 0);
	vcpu_arch_set_entry_point(self->vcpu, guest_one_event_denied);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* Seen to fail when a load does not write selectors that are in use already. */
TEST_F(filter, filter_set_while_the_guest_counts_acts_at_once)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_denied_for_a_while);
	while (run_guest_io(&self->vcpu, NULL, deny_for_a_while, NULL))
		;
}

/* Seen to fail when KVM's fastpath does not look for a filter (Intel machine). */
TEST_F(filter, selector_of_the_msr_filter_is_written_by_userspace)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_write_is_userspaces);
	ASSERT_TRUE(run_guest(self->vcpu, NULL));

	take_selector_writes(self->vm);
	vcpu_run(self->vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(self->vcpu, KVM_EXIT_X86_WRMSR);
	EXPECT_EQ(self->vcpu->run->msr.index, selector_msr(0));
	EXPECT_EQ(self->vcpu->run->msr.data, 0);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* Seen to fail when HostOnly goes to hardware, or GuestOnly does not. */
TEST_F(filter, amd_mode_bits_of_a_nested_guest_select_its_own_mode)
{
	if (!host_cpu_is_amd_compatible)
		SKIP(return, "AMD only");
	if (!kvm_cpu_has(X86_FEATURE_SVM))
		SKIP(return, "KVM without nested virtualization");

	vcpu_arch_set_entry_point(self->vcpu, guest_nested_mode_bits);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

/* Seen to fail with the same break. */
TEST_F(filter, amd_mode_bits_of_a_plain_guest_are_dropped)
{
	if (!host_cpu_is_amd_compatible)
		SKIP(return, "AMD only");

	vcpu_clear_cpuid_feature(self->vcpu, X86_FEATURE_SVM);
	vcpu_arch_set_entry_point(self->vcpu, guest_plain_mode_bits);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
}

TEST_HARNESS_MAIN
