// SPDX-License-Identifier: GPL-2.0
/*
 * The NMI watchdog of the host, which distributions have on, and a guest that
 * counts with all counters: both have the PMU when it is their turn.
 *
 * The test switches the watchdog on, and leaves it as it was.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "harness.h"
#include "machine.h"
#include "payload.h"

#define SYSCTL	"/proc/sys/kernel/nmi_watchdog"

static const struct payload loop = PAYLOAD_LOOP;
static const struct payload pio_exits = PAYLOAD_PIO;

#define NR_LOOPS	100000
#define NR_EXITS	20
#define HOST_LOOPS	100000

static void guest_count(void)
{
	u64 expected = payload_count(&pio_exits, INSTRUCTIONS, NR_EXITS) +
		       payload_count(&loop, INSTRUCTIONS, NR_LOOPS);
	unsigned int pmc;
	u64 enable;

	for (;;) {
		pmu_reset();
		for (pmc = 0, enable = 0; pmc < nr_counters(); pmc++) {
			pmc_program(pmc, INSTRUCTIONS, PMC_COUNT, 0);
			enable |= counter_bit(pmc);
		}
		pio_exits.measure(enable, NR_EXITS);
		loop.measure(enable, NR_LOOPS);

		for (pmc = 0; pmc < nr_counters(); pmc++)
			if (pmc_counts(pmc, INSTRUCTIONS))
				GUEST_ASSERT_EQ(pmc_read(pmc), expected);
		GUEST_SYNC(0);
	}
}

static u64 read_host_msr(int cpu, u32 msr)
{
	char path[32];
	u64 value;
	int fd;

	snprintf(path, sizeof(path), "/dev/cpu/%d/msr", cpu);
	fd = open(path, O_RDONLY);
	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR(path, fd));
	TEST_ASSERT(pread(fd, &value, sizeof(value), msr) == sizeof(value), "RDMSR of %#x", msr);
	close(fd);
	return value;
}

/* Whether the counter counts in the host, in ring 0. */
static bool host_counts(int cpu, unsigned int pmc)
{
	unsigned int fixed = pmc - shape.nr_gp;
	u64 enable = ARCH_PERFMON_EVENTSEL_ENABLE | ARCH_PERFMON_EVENTSEL_OS;

	if (!(read_host_msr(cpu, vendor->global_control) & counter_bit(pmc)))
		return false;
	if (pmc_is_fixed(pmc))
		return read_host_msr(cpu, vendor->fixed_control) &
		       FIXED_PMC_CTRL(fixed, FIXED_PMC_KERNEL);
	return (read_host_msr(cpu, selector_msr(pmc)) & enable) == enable;
}

/* The counter of the watchdog on @cpu, the only one in use; -1: there is none. */
static int watchdog_counter(int cpu)
{
	unsigned int pmc;
	int found = -1;

	for (pmc = 0; pmc < nr_counters(); pmc++) {
		if (!host_counts(cpu, pmc))
			continue;
		TEST_ASSERT(found < 0, "Counters %d and %u of CPU %d are in use", found, pmc, cpu);
		found = pmc;
	}
	return found;
}

static int read_sysctl(void)
{
	FILE *file = fopen(SYSCTL, "r");
	int value = -1;

	if (file) {
		if (fscanf(file, "%d", &value) != 1)
			value = -1;
		fclose(file);
	}
	return value;
}

static void write_sysctl(int value)
{
	FILE *file = fopen(SYSCTL, "w");

	TEST_ASSERT(file && fprintf(file, "%d\n", value) > 0, "Can't write " SYSCTL);
	fclose(file);
}

FIXTURE(watchdog) {
	int was;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(watchdog)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
	self->was = read_sysctl();
	if (self->was < 0)
		SKIP(return, "the kernel has no NMI watchdog");

	/* Its period begins now. */
	write_sysctl(0);
	write_sysctl(1);
	self->vm = pmu_vm_create(&self->vcpu, guest_count);
}

FIXTURE_TEARDOWN(watchdog)
{
	kvm_vm_free(self->vm);
	write_sysctl(self->was);
}

/* A host loop of 2 * @n + 1 instructions. */
static void host_loop(u64 n)
{
	asm volatile("mov %[n], %%rcx\n"
		     "1: dec %%rcx\n\t"
		     "jnz 1b" : : [n]"r"(n) : "rcx", "cc");
}

/* What the host has executed on this CPU, as test machines count it. */
static u64 executed(void)
{
	return machine_count(MACHINE_KERNEL_INSTRUCTIONS) +
	       machine_count(MACHINE_USER_INSTRUCTIONS);
}

/*
 * The guest checks its counts.  Seen to fail with the watchdog off, and when
 * perf does not get the PMU back.
 *
 * The watchdog counts cycles; on a test machine an instruction takes one. It counts
 * all of the host but what is executed while the PMU is the guest's, and nothing of
 * the guest.
 */
TEST_F(watchdog, goes_on_while_a_guest_counts)
{
	int cpu, nr_cpus = sysconf(_SC_NPROCESSORS_ONLN);
	u64 before, after, from, count;
	int counter, i;

	for (i = 0; i < 5; i++) {
		for (cpu = 0; cpu < nr_cpus; cpu++) {
			pin_self_to_cpu(cpu);
			counter = watchdog_counter(cpu);
			ASSERT_LE(0, counter);

			from = executed();
			before = read_host_msr(cpu, counter_msr(counter));
			EXPECT_TRUE(run_guest(self->vcpu, NULL));
			host_loop(HOST_LOOPS);
			after = read_host_msr(cpu, counter_msr(counter));
			EXPECT_EQ(counter, watchdog_counter(cpu));

			count = (after - before) & counter_mask();
			EXPECT_LT(2 * HOST_LOOPS, count);
			if (machine_read(MACHINE_USER_INSTRUCTIONS, &before))
				EXPECT_GT(executed() - from, count);
		}
	}
}

TEST_HARNESS_MAIN
