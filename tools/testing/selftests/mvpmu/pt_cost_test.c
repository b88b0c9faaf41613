// SPDX-License-Identifier: GPL-2.0
/*
 * What an exit that KVM handles costs a guest that may trace: accesses of the host to
 * registers, exactly, as the machine has counted them.
 */
#include "guest_pt.h"
#include "harness.h"
#include "machine.h"

#define FEW	50
#define MANY	150
/* An odd number, of which the median is one. */
#define ROUNDS	9

#define AUX_SIZE	(1 << 18)

/* Physical addresses, for the guest, and whether it traces. */
static u64 output_gpa, table_gpa, nr_exits;
static bool traces;

static u8 __aligned(4096) output[4096];
static u64 __aligned(4096) table[512];

static void guest_causes_exits(void)
{
	u32 eax, ebx, ecx, edx;
	u64 i;

	if (traces) {
		table[0] = output_gpa;
		table[1] = table_gpa | TOPA_END;
		wrmsr(MSR_IA32_RTIT_OUTPUT_BASE, table_gpa);
		wrmsr(MSR_IA32_RTIT_OUTPUT_MASK, 0);
		wrmsr(MSR_IA32_RTIT_CTL, CTL_TRACE_EN | CTL_TOPA | CTL_BRANCH_EN | CTL_OS);
	}
	for (;;) {
		GUEST_SYNC(0);
		for (i = 0; i < nr_exits; i++)
			__cpuid(0, 0, &eax, &ebx, &ecx, &edx);
	}
}

FIXTURE(pt_cost) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(pt_cost) {
	bool host, guest;
	u64 reads, writes;
};

/*
 * RTIT_CTL before and after.  If both trace also STATUS, OUTPUT_BASE and OUTPUT_MASK, read
 * of the one and written for the other in both directions, and GLOBAL_STATUS.
 */
FIXTURE_VARIANT_ADD(pt_cost, neither_traces) { };
FIXTURE_VARIANT_ADD(pt_cost, the_host_traces) { .host = true, .writes = 2 };
FIXTURE_VARIANT_ADD(pt_cost, the_guest_traces) { .guest = true };
FIXTURE_VARIANT_ADD(pt_cost, both_trace) {
	.host = true, .guest = true, .reads = 8, .writes = 8,
};

FIXTURE_SETUP(pt_cost)
{
	const char *missing = pt_missing();
	u64 count;

	if (!missing && !machine_read(MACHINE_WRMSR, &count))
		missing = "only the test machines count accesses";
	if (missing)
		SKIP(return, "%s", missing);
	pin_self_to_cpu(0);
	traces = variant->guest;
	self->vm = pmu_vm_create(&self->vcpu, guest_causes_exits);
	output_gpa = addr_gva2gpa(self->vm, (gva_t)output);
	table_gpa = addr_gva2gpa(self->vm, (gva_t)table);
	sync_global_to_guest(self->vm, output_gpa);
	sync_global_to_guest(self->vm, table_gpa);
	sync_global_to_guest(self->vm, traces);
}

FIXTURE_TEARDOWN(pt_cost)
{
	kvm_vm_free(self->vm);
}

struct counts {
	u64 reads, writes;
};

static struct counts measure(struct kvm_vcpu *vcpu, u64 exits)
{
	struct counts before = { machine_count(MACHINE_RDMSR), machine_count(MACHINE_WRMSR) };

	nr_exits = exits;
	sync_global_to_guest(vcpu->vm, nr_exits);
	TEST_ASSERT(run_guest(vcpu, NULL), "The guest has ended");
	return (struct counts){ machine_count(MACHINE_RDMSR) - before.reads,
				machine_count(MACHINE_WRMSR) - before.writes };
}

static int compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

static u64 median(u64 *values)
{
	qsort(values, ROUNDS, sizeof(values[0]), compare);
	return values[ROUNDS / 2];
}

/*
 * The median, so that what the kernel does by the way, now and then, is not taken for a
 * cost of the exits.  Seen to fail when the guest's registers are saved at each exit.
 */
TEST_F(pt_cost, of_an_exit_is_exact)
{
	struct perf_event_attr attr = { .exclude_user = 1 };
	u64 reads[ROUNDS], writes[ROUNDS];
	struct counts few, many;
	struct host_pt trace;
	unsigned int i;

	TEST_ASSERT(run_guest(self->vcpu, NULL), "The guest has ended");
	/* One that is written over and over has no PMIs. */
	if (variant->host) {
		trace = open_host_pt_with(&attr, AUX_SIZE, -1, PROT_READ);
		TEST_ASSERT(!ioctl(trace.fd, PERF_EVENT_IOC_ENABLE, 0), "Enabling the event");
	}
	measure(self->vcpu, FEW);
	for (i = 0; i < ROUNDS; i++) {
		few = measure(self->vcpu, FEW);
		many = measure(self->vcpu, MANY);
		reads[i] = many.reads - few.reads;
		writes[i] = many.writes - few.writes;
	}
	EXPECT_EQ(variant->reads * (MANY - FEW), median(reads));
	EXPECT_EQ(variant->writes * (MANY - FEW), median(writes));
	if (variant->host)
		close_host_pt(&trace);
}

TEST_HARNESS_MAIN
