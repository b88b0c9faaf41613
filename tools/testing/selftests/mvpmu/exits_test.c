// SPDX-License-Identifier: GPL-2.0
/*
 * A guest that counts reads and writes its PMU without VM exits; what KVM has
 * to look at exits, once per access.
 *
 * The guest runs the same section with no access and with NR_ACCESSES of them.
 * The difference of KVM's exit statistics, host interrupts left out, is the
 * number of exits that the accesses caused.
 */
#include <sys/prctl.h>

#include "harness.h"
#include "guest_pmu.h"

#define NR_ACCESSES	1000

struct access {
	const char *name;
	void (*once)(void);
	/* Exits when the guest has all counters of the CPU, and when not. */
	unsigned int exits;
	unsigned int exits_of_limited_guest;
};

static void read_rdpmc(void)
{
	pmc_read(0);
}

static void read_counter(void)
{
	rdmsr(counter_msr(0));
}

static void write_counter(void)
{
	wrmsr(counter_msr(1), 0);
}

static void read_global_control(void)
{
	rdmsr(vendor->global_control);
}

static void write_global_control(void)
{
	wrmsr(vendor->global_control, counter_bit(0));
}

static void read_global_status(void)
{
	rdmsr(vendor->global_status);
}

static void clear_global_status(void)
{
	wrmsr(vendor->global_status_clear, counter_bit(0));
}

static void read_selector(void)
{
	rdmsr(selector_msr(0));
}

/* The second counter, so that the first goes on counting. */
static void write_selector(void)
{
	wrmsr(selector_msr(1), 0);
}

static const struct access accesses[] = {
	{ "RDPMC",			read_rdpmc,		0, 1 },
	{ "read of a counter",		read_counter,		0, 0 },
	{ "write of a counter",		write_counter,		0, 0 },
	{ "read of GLOBAL_CTRL",	read_global_control,	0, 1 },
	{ "write of GLOBAL_CTRL",	write_global_control,	0, 1 },
	{ "read of GLOBAL_STATUS",	read_global_status,	0, 1 },
	{ "clear of GLOBAL_STATUS",	clear_global_status,	0, 1 },
	{ "read of a selector",		read_selector,		1, 1 },
	{ "write of a selector",	write_selector,		1, 1 },
};

static const struct access *access_tested;
static u64 nr_accesses;

static void guest_access(void)
{
	u64 i;

	pmu_reset();
	/* A provider may pass through only what has counted. */
	pmc_program(1, INSTRUCTIONS, PMC_COUNT, 0);
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(0));

	for (;;) {
		GUEST_SYNC(0);
		for (i = 0; i < nr_accesses; i++)
			access_tested->once();
	}
}

/* From one GUEST_SYNC to the next. */
static u64 exits_of(struct kvm_vcpu *vcpu, const struct access *access, u64 n)
{
	u64 before;

	access_tested = access;
	nr_accesses = n;
	sync_global_to_guest(vcpu->vm, access_tested);
	sync_global_to_guest(vcpu->vm, nr_accesses);

	before = guest_exits(vcpu);
	TEST_ASSERT(run_guest(vcpu, NULL), "The guest never ends");
	return guest_exits(vcpu) - before;
}

FIXTURE(exits) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(exits) {
	unsigned int nr_gp;	/* 0: all */
};

FIXTURE_VARIANT_ADD(exits, all_counters) {
	.nr_gp = 0,
};

FIXTURE_VARIANT_ADD(exits, four_counters) {
	.nr_gp = 4,
};

FIXTURE_SETUP(exits)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);

	/* No page of the guest may be moved, it would fault once more. */
	TEST_ASSERT_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);

	self->vm = pmu_vm_create(&self->vcpu, guest_access);
	if (variant->nr_gp)
		pmu_limit_counters(self->vcpu, variant->nr_gp);
}

FIXTURE_TEARDOWN(exits)
{
	kvm_vm_free(self->vm);
}

/*
 * Seen to fail when GLOBAL_CTRL stays intercepted, when RDPMC does, and when
 * RDPMC is not intercepted although the CPU has more counters than the guest.
 */
TEST_F(exits, each_access_exits_as_often_as_it_has_to)
{
	const struct access *access;
	u64 without, exits;
	unsigned int i;

	EXPECT_TRUE(run_guest(self->vcpu, NULL));

	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		access = &accesses[i];

		/* The first time touches its pages. */
		exits_of(self->vcpu, access, 1);
		without = exits_of(self->vcpu, access, 0);
		exits = guest_has_all_counters() ? access->exits :
						   access->exits_of_limited_guest;

		EXPECT_EQ(without + exits * NR_ACCESSES,
			  exits_of(self->vcpu, access, NR_ACCESSES))
			TH_LOG("%u times %s", NR_ACCESSES, access->name);
	}
}

TEST_HARNESS_MAIN
