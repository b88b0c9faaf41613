// SPDX-License-Identifier: GPL-2.0
/*
 * Not a test: what a VM exit costs, in operations on PMU registers and in
 * instructions, as the test machine counts them (a CPUID leaf of its own).
 *
 *	bench SCENARIO HOST_EVENT COUNTERS FEW MANY [tsc]
 *
 * lets a guest cause FEW exits and then MANY, several times, and writes what that
 * took on the CPU: "few KEY N" and "many KEY N" lines.  The difference is that of
 * MANY - FEW exits alone.  N is the median, so that what the kernel has to do by the
 * way, now and then, is not taken for a cost of the exits.  COUNTERS -1 is a guest
 * without a PMU, 100 one that uses all.  With "_branches" behind its name the guest
 * of a SCENARIO records branches, too.  With "tsc", for a real machine, which does
 * not count so: "round N" lines, the cycles that MANY took more than FEW each time.
 */
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "apic.h"
#include "guest_branches.h"
#include "machine.h"

#define FRESH_GPA	(1ull << 32)
#define FRESH_GVA	(1ull << 32)
#define PORT		0x80
#define TIMER_VECTOR	0x40

enum scenario {
	EPT,
	CPUID,
	CPUID_INSN,
	IO,
	HALT,
	SHARE,
	SELECTOR,
	FEWER,
	NR_SCENARIOS,
};

static const char * const scenarios[NR_SCENARIOS] = {
	"ept", "cpuid", "cpuid_insn", "io", "halt", "share", "selector", "fewer",
};

/* To the guest. */
static enum scenario scenario;
static u64 nr_exits;
static unsigned int nr_used;
static u64 cycles;
static bool records;

/* Of the guest. */
static u64 enabled;

static void timer_handler(struct ex_regs *regs)
{
	x2apic_write_reg(APIC_EOI, 0);
}

/* What perf does to an event: disable it and enable it, the last time is the latter. */
static void write_selectors(void)
{
	/* A guest without a counter does not enable one. */
	u64 i, toggled = nr_used ? PMC_ENABLE : PMC_USR;

	for (i = 0; i < nr_exits; i++)
		wrmsr(selector_msr(0), cycles | PMC_OS | (i % 2 ? toggled : 0));
}

static void cause_exits(void)
{
	u64 i;

	switch (scenario) {
	case EPT:
		for (i = 0; i < nr_exits; i++)
			WRITE_ONCE(*(u8 *)(FRESH_GVA + i * PAGE_SIZE), 1);
		break;
	case CPUID:
	case CPUID_INSN:
		for (i = 0; i < nr_exits; i++)
			asm volatile("cpuid" : : "a"(0), "c"(0) : "rbx", "rdx");
		break;
	case IO:
	case SHARE:
		for (i = 0; i < nr_exits; i++)
			asm volatile("outb %%al, $0x80" : : "a"(0));
		break;
	case HALT:
		x2apic_enable();
		x2apic_write_reg(APIC_LVTT, TIMER_VECTOR);
		x2apic_write_reg(APIC_TDCR, 0xb);
		for (i = 0; i < nr_exits; i++) {
			x2apic_write_reg(APIC_TMICT, 1000);
			asm volatile("sti; hlt; cli");
		}
		break;
	case SELECTOR:
		write_selectors();
		break;
	case FEWER:
		for (i = 0; i < nr_exits; i += 2) {
			pmc_read(0);
			wrmsr(vendor->global_control, enabled);
		}
		break;
	default:
		GUEST_FAIL("scenario %u", scenario);
	}
}

static void guest(void)
{
	unsigned int pmc;

	enabled = 0;
	for (pmc = 0; pmc < nr_used; pmc++) {
		pmc_program(pmc, INSTRUCTIONS, PMC_COUNT, 0);
		if (cycles && !pmc_is_fixed(pmc))
			wrmsr(selector_msr(pmc), cycles | PMC_COUNT);
		/* The first fixed counter counts instructions. */
		if (cycles && pmc == shape.nr_gp)
			pmc_program(pmc, INSTRUCTIONS, 0, 0);
		enabled |= counter_bit(pmc);
	}
	if (nr_used)
		wrmsr(vendor->global_control, enabled);
	if (records)
		wrmsr(lbr_control(), recording_of(0));

	for (;;) {
		GUEST_SYNC(0);
		cause_exits();
	}
}

/* What the machine has counted on this CPU; all 0 where it does not count. */
#define NR_KEYS		(MACHINE_INSTRUCTIONS + 1)

/* Or cycles, as the first and only one. */
static bool by_tsc;

static const char * const keys[NR_KEYS] = {
	[MACHINE_RDMSR]		= "rdmsr",
	[MACHINE_WRMSR]		= "wrmsr",
	[MACHINE_RDPMC]		= "rdpmc",
	[MACHINE_LVTPC]		= "lvtpc",
	[MACHINE_EXITS]		= "exits",
	[MACHINE_INSTRUCTIONS]	= "instructions",
};

static void read_counts(u64 *counts)
{
	unsigned int i;

	if (by_tsc) {
		memset(counts, 0, NR_KEYS * sizeof(*counts));
		counts[0] = rdtsc();
		return;
	}
	for (i = 0; i < NR_KEYS; i++)
		TEST_ASSERT(machine_read(i, &counts[i]), "Only the test machines count operations");
}

static struct kvm_vcpu *vcpus[2];

/* KVM_RUN until the guest is at its next GUEST_SYNC. */
static void run_to_sync(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	do {
		vcpu_run(vcpu);
		TEST_ASSERT_EQ(vcpu->run->exit_reason, KVM_EXIT_IO);
	} while (vcpu->run->io.port == PORT);

	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(uc.cmd, UCALL_SYNC);
}

/* Two vCPUs' threads in turns on one CPU, each for one exit to userspace. */
static int turn[2];

static void *share(void *data)
{
	unsigned int me = (unsigned long)data;
	struct kvm_vcpu *vcpu = vcpus[me];
	u64 i, value;

	pin_self_to_cpu(0);
	for (i = 0; i < nr_exits; i++) {
		TEST_ASSERT_EQ(read(turn[me], &value, sizeof(value)), sizeof(value));
		vcpu_run(vcpu);
		TEST_ASSERT_EQ(vcpu->run->io.port, PORT);
		value = 1;
		TEST_ASSERT_EQ(write(turn[!me], &value, sizeof(value)), sizeof(value));
	}
	run_to_sync(vcpu);
	return NULL;
}

static void run_shared(void)
{
	pthread_t threads[2];
	u64 value = 1;
	unsigned long i;

	for (i = 0; i < 2; i++)
		turn[i] = eventfd(0, 0);
	for (i = 0; i < 2; i++)
		TEST_ASSERT(!pthread_create(&threads[i], NULL, share, (void *)i), "pthread_create");
	TEST_ASSERT_EQ(write(turn[0], &value, sizeof(value)), sizeof(value));
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < 2; i++)
		close(turn[i]);
}

/* An odd number, of which the median is one. */
#define ROUNDS		9

static u64 few_counts[ROUNDS][NR_KEYS], many_counts[ROUNDS][NR_KEYS];

static void measure(u64 *counts, u64 n)
{
	struct kvm_vm *vm = vcpus[0]->vm;
	u64 before[NR_KEYS];
	unsigned int i;

	nr_exits = n;
	sync_global_to_guest(vm, nr_exits);
	if (scenario == SHARE)
		sync_global_to_guest(vcpus[1]->vm, nr_exits);
	if (scenario == EPT) {
		/* All pages are fresh once more. */
		TEST_ASSERT(!madvise(addr_gpa2hva(vm, FRESH_GPA), n * PAGE_SIZE, MADV_DONTNEED),
			    "madvise");
	}

	read_counts(before);
	if (scenario == SHARE)
		run_shared();
	else
		run_to_sync(vcpus[0]);
	read_counts(counts);

	for (i = 0; i < NR_KEYS; i++)
		counts[i] -= before[i];
}

static int compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

/* A round in which the kernel had to do nothing by the way, if there was one. */
static void print_least(const char *name, u64 (*counts)[NR_KEYS])
{
	u64 least = counts[0][MACHINE_INSTRUCTIONS];
	unsigned int k;

	for (k = 1; k < ROUNDS; k++)
		least = min(least, counts[k][MACHINE_INSTRUCTIONS]);
	printf("%s least %lu\n", name, least);
}

static void print_medians(const char *name, u64 (*counts)[NR_KEYS])
{
	u64 values[ROUNDS];
	unsigned int i, k;

	for (i = 0; i < NR_KEYS; i++) {
		for (k = 0; k < ROUNDS; k++)
			values[k] = counts[k][i];
		qsort(values, ROUNDS, sizeof(values[0]), compare);
		printf("%s %s %lu\n", name, keys[i], values[ROUNDS / 2]);
	}
}

static void print_rounds(void)
{
	unsigned int i;

	for (i = 0; i < ROUNDS; i++)
		printf("round %ld\n", (s64)(many_counts[i][0] - few_counts[i][0]));
}

static struct kvm_vm *create_vm(struct kvm_vcpu **vcpu, int counters, u64 pages)
{
	struct kvm_vm *vm;

	if (counters >= 0) {
		vm = pmu_vm_create(vcpu, guest);
	} else {
		vm = vm_create(1);
		vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE);
		*vcpu = vm_vcpu_add(vm, 0, guest);
	}
	/* Half of them, or two thirds. */
	if (scenario == FEWER)
		pmu_limit_counters(*vcpu, 4);
	/* Of the fixed counters those that KVM's own provider has, too. */
	nr_used = counters < 0 ? 0 : min_t(unsigned int, counters,
					   shape.nr_gp + min_t(u32, shape.nr_fixed, 3));
	vm_install_exception_handler(vm, TIMER_VECTOR, timer_handler);
	sync_global_to_guest(vm, scenario);
	sync_global_to_guest(vm, nr_used);
	sync_global_to_guest(vm, cycles);
	sync_global_to_guest(vm, records);
	if (scenario == EPT) {
		vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, FRESH_GPA, 1, pages, 0);
		virt_map(vm, FRESH_GVA, FRESH_GPA, pages);
		TEST_ASSERT(!madvise(addr_gpa2hva(vm, FRESH_GPA), pages * PAGE_SIZE,
				     MADV_NOHUGEPAGE), "madvise");
	}
	return vm;
}

int main(int argc, char *argv[])
{
	struct kvm_vm *vms[2] = {};
	char *branches;
	u64 few, many;
	unsigned int i;
	int counters;

	by_tsc = argc == 7 && !strcmp(argv[6], "tsc");
	TEST_ASSERT(argc == 6 || by_tsc, "bench SCENARIO HOST_EVENT COUNTERS FEW MANY [tsc]");
	branches = strstr(argv[1], "_branches");
	if (branches) {
		records = true;
		*branches = 0;
	}
	for (scenario = 0; scenario < NR_SCENARIOS; scenario++)
		if (!strcmp(argv[1], scenarios[scenario]))
			break;
	TEST_ASSERT(scenario < NR_SCENARIOS, "No scenario %s", argv[1]);
	counters = atoi(argv[3]);
	few = strtoull(argv[4], NULL, 0);
	many = strtoull(argv[5], NULL, 0);
	if (scenario != CPUID_INSN)
		cycles = host_cpu_is_intel ? INTEL_ARCH_CPU_CYCLES : AMD_ZEN_CORE_CYCLES;

	pin_self_to_cpu(0);
	pmu_missing();
	if (atoi(argv[2]))
		open_host_event();

	vms[0] = create_vm(&vcpus[0], counters, many);
	if (scenario == SHARE)
		vms[1] = create_vm(&vcpus[1], counters, many);
	run_to_sync(vcpus[0]);
	if (scenario == SHARE)
		run_to_sync(vcpus[1]);

	printf("used %u\n", nr_used);
	/* The first time touches what is touched once. */
	measure(few_counts[0], few);
	for (i = 0; i < ROUNDS; i++) {
		machine_mark(MACHINE_SUBTRACT);
		measure(few_counts[i], few);
		machine_mark(MACHINE_ADD);
		measure(many_counts[i], many);
	}
	machine_mark(MACHINE_END);
	if (by_tsc) {
		print_rounds();
	} else {
		print_medians("few", few_counts);
		print_medians("many", many_counts);
		print_least("few", few_counts);
		print_least("many", many_counts);
	}

	kvm_vm_free(vms[0]);
	if (scenario == SHARE)
		kvm_vm_free(vms[1]);
	return 0;
}
