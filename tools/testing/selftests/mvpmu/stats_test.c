// SPDX-License-Identifier: GPL-2.0
/*
 * KVM's binary statistics (KVM_GET_STATS_FD) of a vCPU say what mvpmu counts in
 * debugfs.
 */
#include <fcntl.h>
#include <unistd.h>

#include "harness.h"
#include "payload.h"

#define PREFIX		"mediated_pmu_"

static const char * const counts[] = {
	"activations", "refusals", "waiting", "loads", "puts", "switches_avoided",
	"releases", "pmis", "hw_reads", "hw_writes", "guest_reads", "guest_writes",
};

static u64 statistic(struct kvm_vcpu *vcpu, const char *count)
{
	char name[64];
	u64 value;

	snprintf(name, sizeof(name), PREFIX "%s", count);
	kvm_get_stat(&vcpu->stats, name, &value, 1);
	return value;
}

/* Whether the VM or vCPU has statistics that begin with PREFIX and are not in the list. */
static unsigned int nr_others(struct kvm_binary_stats *stats)
{
	unsigned int i, j, others = 0;

	for (i = 0; i < stats->header.num_desc; i++) {
		const char *name = get_stats_descriptor(stats->desc, i, &stats->header)->name;

		if (strncmp(name, PREFIX, strlen(PREFIX)))
			continue;
		for (j = 0; j < ARRAY_SIZE(counts); j++)
			if (!strcmp(name + strlen(PREFIX), counts[j]))
				break;
		others += j == ARRAY_SIZE(counts);
	}
	return others;
}

static void guest_count(void)
{
	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	measure_cpuid(counter_bit(0), 100);
	GUEST_SYNC(0);
	wrmsr(selector_msr(0), 0);
	measure_cpuid(0, 100);
	GUEST_DONE();
}

FIXTURE(stats) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(stats)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
	self->vm = pmu_vm_create(&self->vcpu, guest_count);
}

FIXTURE_TEARDOWN(stats)
{
	if (self->vm)
		kvm_vm_free(self->vm);
}

static void check(struct kvm_vcpu *vcpu)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(counts); i++)
		TEST_ASSERT(statistic(vcpu, counts[i]) == mvpmu_count(counts[i]),
			    "%s: %lu in KVM's statistics, %lu in debugfs", counts[i],
			    statistic(vcpu, counts[i]), mvpmu_count(counts[i]));
}

TEST_F(stats, are_what_debugfs_counts)
{
	check(self->vcpu);
	EXPECT_TRUE(run_guest(self->vcpu, NULL));
	check(self->vcpu);
	EXPECT_NE(0, statistic(self->vcpu, "loads"));
	EXPECT_NE(0, statistic(self->vcpu, "hw_reads"));
	EXPECT_NE(0, statistic(self->vcpu, "guest_writes"));
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	check(self->vcpu);
	EXPECT_EQ(0, nr_others(&self->vcpu->stats));
}

/* While the host counts, each exit is a put. */
TEST_F(stats, are_what_debugfs_counts_when_nothing_is_parked)
{
	int event = open_host_event();

	EXPECT_TRUE(run_guest(self->vcpu, NULL));
	close(event);
	check(self->vcpu);
	EXPECT_LE(100, statistic(self->vcpu, "puts"));
}

static void guest_do_nothing(void)
{
	GUEST_DONE();
}

TEST_F(stats, of_a_vm_say_that_it_has_a_mediated_pmu)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	EXPECT_EQ(1, vm_get_stat(self->vm, mediated_pmu));

	vm = vm_create(1);
	vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE);
	vcpu = vm_vcpu_add(vm, 0, guest_do_nothing);
	EXPECT_EQ(0, vm_get_stat(vm, mediated_pmu));
	EXPECT_EQ(0, statistic(vcpu, "loads"));
	kvm_vm_free(vm);
}

/* As KVM does with all that it counts. */
TEST_F(stats, can_be_cleared_without_a_trace_in_debugfs_of_mvpmu)
{
	u64 loads;
	int fd;

	EXPECT_TRUE(run_guest(self->vcpu, NULL));
	loads = mvpmu_count("loads");
	ASSERT_NE(0, loads);
	fd = open("/sys/kernel/debug/kvm/" PREFIX "loads", O_WRONLY);
	ASSERT_LE(0, fd);
	ASSERT_EQ(1, write(fd, "0", 1));
	close(fd);
	EXPECT_EQ(0, statistic(self->vcpu, "loads"));
	EXPECT_EQ(loads, mvpmu_count("loads"));
}

TEST_HARNESS_MAIN
