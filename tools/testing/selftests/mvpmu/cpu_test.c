// SPDX-License-Identifier: GPL-2.0
/*
 * The PMU is the vCPU's, wherever it runs and whoever else runs there.
 *
 * How long the guest runs depends on the host here, so the guest itself counts
 * the iterations of its loop, and the counters must agree with it.
 */
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "apic.h"
#include "harness.h"
#include "payload.h"

#define NR_VCPUS	2
#define NR_TURNS	25
#define PERIOD		1000

struct spin {
	u64 iterations;
	u64 stop;
};

/* Per vCPU; each on its own cache line. */
static struct spin spins[NR_VCPUS] __aligned(128);

static void measure_spin(u64 enable, struct spin *spin)
{
	MEASURE(enable,
		"1: incq %[iterations]\n\t"
		"cmpq $0, %[stop]\n\t"
		"je 1b",
		[iterations]"m"(spin->iterations), [stop]"m"(spin->stop));
}

static const u64 spin_each[NR_PMU_EVENTS] = {
	[INSTRUCTIONS] = 3,
	[BRANCHES] = 1,
};

/* All counters of the vCPU count the same event, which is not its peer's. */
static void guest_spin(u32 id)
{
	enum pmu_event event = id % NR_PMU_EVENTS;
	u64 enable, expected;
	unsigned int pmc;

	pmu_reset();
	enable = pmc_program_all(event, NULL);
	measure_spin(enable, &spins[id]);

	expected = spins[id].iterations * spin_each[event] +
		   (event == INSTRUCTIONS ? MEASURE_INSTRUCTIONS : 0);
	for (pmc = 0; pmc < nr_counters(); pmc++)
		__GUEST_ASSERT(pmc_read(pmc) == (enable & counter_bit(pmc) ? expected : 0),
			       "vCPU %u, counter %u: expected %lu, counted %lu",
			       id, pmc, expected, pmc_read(pmc));
	GUEST_DONE();
}

static const struct payload pio = PAYLOAD_PIO;

static void guest_pio(void)
{
	u64 expected = payload_count(&pio, INSTRUCTIONS, NR_TURNS);
	unsigned int pmc;

	for (pmc = 0; pmc < nr_counters(); pmc++) {
		if (!pmc_counts(pmc, INSTRUCTIONS))
			continue;
		pmu_reset();
		pmc_program(pmc, INSTRUCTIONS, PMC_COUNT, 0);
		pio.measure(counter_bit(pmc), NR_TURNS);
		__GUEST_ASSERT(pmc_read(pmc) == expected,
			       "counter %u: expected %lu, counted %lu",
			       pmc, expected, pmc_read(pmc));
	}
	GUEST_DONE();
}

/* Per vCPU: turns complete, PMIs taken. */
static u64 turns[NR_VCPUS];
static u64 nr_pmis[NR_VCPUS];

static void guest_pmi(struct ex_regs *regs)
{
	nr_pmis[x2apic_read_reg(APIC_ID)]++;
	wrmsr(vendor->global_status_clear, rdmsr(vendor->global_status));
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	x2apic_write_reg(APIC_EOI, 0);
}

/* Takes a PMI in each turn, and turns with its peer. */
static void guest_sample(u32 id)
{
	unsigned int turn;

	x2apic_enable();
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	asm volatile("sti");

	pmu_reset();
	for (turn = 0; turn < NR_TURNS; turn++) {
		pmc_program(1, BRANCHES, PMC_COUNT | PMC_PMI, overflow_in(PERIOD));
		measure_loop(counter_bit(1), PERIOD);
		__GUEST_ASSERT(READ_ONCE(nr_pmis[id]) == turn + 1,
			       "vCPU %u: expected %u PMIs, got %lu",
			       id, turn + 1, READ_ONCE(nr_pmis[id]));

		WRITE_ONCE(turns[id], turn + 1);
		while (READ_ONCE(turns[!id]) <= turn)
			cpu_relax();
	}
	GUEST_DONE();
}

static struct spin *host_spin(struct kvm_vm *vm, unsigned int id)
{
	return addr_gva2hva(vm, (gva_t)&spins[id]);
}

/* Returns once the guest has run. */
static void wait_for_guest(struct spin *spin)
{
	u64 seen = READ_ONCE(spin->iterations);

	while (READ_ONCE(spin->iterations) == seen)
		sched_yield();
}

static void *vcpu_thread(void *vcpu)
{
	TEST_ASSERT(!run_guest(vcpu, NULL), "The guest has to end");
	return NULL;
}

static bool has_two_cpus(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) >= 2;
}

struct runners {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[NR_VCPUS];
	pthread_t threads[NR_VCPUS];
};

static void start_vcpu(struct runners *runners, unsigned int i, int cpu)
{
	TEST_ASSERT_EQ(pthread_create(&runners->threads[i], NULL, vcpu_thread,
				      runners->vcpus[i]), 0);
	pin_task_to_cpu(runners->threads[i], cpu);
}

static void stop_vcpu(struct runners *runners, unsigned int i)
{
	WRITE_ONCE(host_spin(runners->vm, i)->stop, 1);
	pthread_join(runners->threads[i], NULL);
}

/* Both vCPUs run, in turn or at the same time, NR_TURNS times at least. */
static void run_both(struct runners *runners, int cpu0, int cpu1)
{
	unsigned int turn;

	start_vcpu(runners, 0, cpu0);
	start_vcpu(runners, 1, cpu1);
	for (turn = 0; turn < NR_TURNS; turn++) {
		wait_for_guest(host_spin(runners->vm, 0));
		wait_for_guest(host_spin(runners->vm, 1));
	}
	stop_vcpu(runners, 0);
	stop_vcpu(runners, 1);
}

/* Both vCPUs run guest_sample(). */
static void sample_both(struct runners *runners, int cpu0, int cpu1)
{
	unsigned int i;

	vm_install_exception_handler(runners->vm, PMI_VECTOR, guest_pmi);
	for (i = 0; i < NR_VCPUS; i++)
		vcpu_arch_set_entry_point(runners->vcpus[i], guest_sample);
	start_vcpu(runners, 0, cpu0);
	start_vcpu(runners, 1, cpu1);
	for (i = 0; i < NR_VCPUS; i++)
		pthread_join(runners->threads[i], NULL);
}

FIXTURE(cpu) {
	struct runners runners;
};

FIXTURE_SETUP(cpu)
{
	struct runners *runners = &self->runners;
	const char *missing = pmu_missing();
	unsigned int i;

	if (missing)
		SKIP(return, "%s", missing);

	runners->vm = pmu_vm_create(&runners->vcpus[0], guest_spin);
	runners->vcpus[1] = vm_vcpu_add(runners->vm, 1, guest_spin);
	for (i = 0; i < NR_VCPUS; i++)
		vcpu_args_set(runners->vcpus[i], 1, i);
}

FIXTURE_TEARDOWN(cpu)
{
	kvm_vm_free(self->runners.vm);
}

/*
 * Seen to fail when a load takes the counter values of the last put, of
 * whatever vCPU on whatever CPU.
 */
TEST_F(cpu, two_vcpus_on_two_cpus_count_their_own)
{
	if (!has_two_cpus())
		SKIP(return, "needs two CPUs");
	run_both(&self->runners, 0, 1);
}

/*
 * Seen to fail when a load takes what the last put on this CPU left for its
 * own, whoever's it is.
 */
TEST_F(cpu, two_vcpus_on_one_cpu_count_their_own)
{
	run_both(&self->runners, 0, 0);
}

/*
 * Seen to fail when a load takes what the last put on this CPU left because it
 * was this vCPU's, although that has run elsewhere since.
 */
TEST_F(cpu, vcpu_is_moved_while_it_runs)
{
	unsigned int turn;

	if (!has_two_cpus())
		SKIP(return, "needs two CPUs");

	start_vcpu(&self->runners, 0, 0);
	for (turn = 0; turn < NR_TURNS; turn++) {
		wait_for_guest(host_spin(self->runners.vm, 0));
		pin_task_to_cpu(self->runners.threads[0], turn % 2);
	}
	stop_vcpu(&self->runners, 0);
}

static void move_to_next_cpu(struct kvm_vcpu **vcpu, unsigned int nr, void *data)
{
	pin_self_to_cpu(nr % 2);
}

/* Seen to fail with the same break. */
TEST_F(cpu, vcpu_is_moved_between_runs)
{
	if (!has_two_cpus())
		SKIP(return, "needs two CPUs");

	vcpu_arch_set_entry_point(self->runners.vcpus[0], guest_pio);
	EXPECT_FALSE(run_guest_io(&self->runners.vcpus[0], NULL, move_to_next_cpu, NULL));
}

/* Seen to fail when every PMI goes to the VM's first vCPU. */
TEST_F(cpu, two_vcpus_on_two_cpus_take_their_own_pmis)
{
	if (!has_two_cpus())
		SKIP(return, "needs two CPUs");
	sample_both(&self->runners, 0, 1);
}

/* Seen to fail with the same break. */
TEST_F(cpu, two_vcpus_on_one_cpu_take_their_own_pmis)
{
	sample_both(&self->runners, 0, 0);
}

TEST_HARNESS_MAIN
