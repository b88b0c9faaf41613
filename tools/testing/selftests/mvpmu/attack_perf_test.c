// SPDX-License-Identifier: GPL-2.0
/*
 * An exclude_guest event of the host that samples, while a guest counts and
 * reads all of its counters over and over: the event counts and samples the
 * host to the instruction, and the guest reads nothing of it.
 */
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"
#include "attack.h"
#include "control_group.h"
#include "payload.h"

#define RUNS		1000
#define ROUNDS		200
#define ROUNDS_WITH_EXITS	10
#define PERIOD		10007
#define HOST_LOOPS	5000
#define RING_PAGES	64

static const struct payload loop = PAYLOAD_LOOP;

/* Each counts in the address space it is used in. */
static struct attack attack;
static u64 guest_loops;
static unsigned int rounds;

/* Every second counter counts, the others are at rest. */
static u64 count_with_some(void)
{
	unsigned int pmc;
	u64 enable = 0;

	pmu_reset();
	for (pmc = 0; pmc < nr_counters(); pmc += 2) {
		if (!pmc_counts(pmc, INSTRUCTIONS))
			continue;
		pmc_program(pmc, INSTRUCTIONS, PMC_COUNT, 0);
		enable |= counter_bit(pmc);
	}
	loop.measure(enable, guest_loops);
	return enable;
}

static void guest_count(void)
{
	unsigned int round, pmc;
	u64 enable;

	for (;;) {
		enable = count_with_some();
		for (round = 0; round < rounds; round++) {
			for (pmc = 0; pmc < nr_counters(); pmc++) {
				u64 value = pmc_read(pmc);
				u64 expected = enable & counter_bit(pmc) ?
					payload_count(&loop, INSTRUCTIONS, guest_loops) : 0;

				attack.reads++;
				if (value != expected)
					attack_leak(&attack, rdpmc_index(pmc), value);
			}
		}
		if (rdmsr(vendor->global_status))
			attack_leak(&attack, vendor->global_status,
				    rdmsr(vendor->global_status));
		GUEST_SYNC(0);
	}
}

/* Perf takes it for slow when a sample takes long, and throttles the event. */
static void forbid_throttling(void)
{
	const char *percent = "/proc/sys/kernel/perf_cpu_time_max_percent";

	/* Another test may have lowered the rate, which cannot be set while it is 0. */
	write_to(percent, "25");
	write_to("/proc/sys/kernel/perf_event_max_sample_rate", "100000");
	write_to(percent, "0");
}

struct sampler {
	int event;
	struct perf_event_mmap_page *ring;
	u64 samples;
	u64 others;		/* samples of the guest, or lost ones */
};

static void sampler_open(struct sampler *sampler)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.size = sizeof(attr),
		.sample_period = PERIOD,
		.sample_type = PERF_SAMPLE_IP,
		.disabled = 1,
		.pinned = 1,
		.exclude_guest = 1,
		.exclude_kernel = 1,
		.exclude_hv = 1,
	};

	sampler->event = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	TEST_ASSERT(sampler->event >= 0, __KVM_SYSCALL_ERROR("perf_event_open", sampler->event));
	sampler->ring = mmap(NULL, (1 + RING_PAGES) * getpagesize(), PROT_READ | PROT_WRITE,
			     MAP_SHARED, sampler->event, 0);
	TEST_ASSERT(sampler->ring != MAP_FAILED, "mmap() of an event failed");
}

static void sampler_close(struct sampler *sampler)
{
	munmap(sampler->ring, (1 + RING_PAGES) * getpagesize());
	close(sampler->event);
}

/* The sample of a SYSCALL is taken in the kernel. */
static bool is_host_sample(const struct perf_event_header *header)
{
	u16 mode = header->misc & PERF_RECORD_MISC_CPUMODE_MASK;

	return header->type == PERF_RECORD_SAMPLE &&
	       (mode == PERF_RECORD_MISC_USER || mode == PERF_RECORD_MISC_KERNEL);
}

static void sampler_drain(struct sampler *sampler)
{
	u8 *data = (u8 *)sampler->ring + sampler->ring->data_offset;
	u64 head = READ_ONCE(sampler->ring->data_head);
	u64 tail = sampler->ring->data_tail;
	struct perf_event_header *header;

	while (tail < head) {
		header = (void *)&data[tail % (RING_PAGES * getpagesize())];
		if (is_host_sample(header))
			sampler->samples++;
		else
			sampler->others++;
		tail += header->size;
	}
	WRITE_ONCE(sampler->ring->data_tail, tail);
}

static u64 sampler_count(struct sampler *sampler)
{
	u64 count;

	/* A pinned event that lost its counter reads as end of file. */
	TEST_ASSERT_EQ(read(sampler->event, &count, sizeof(count)), sizeof(count));
	return count;
}

/* A host loop of 2 * @n + 1 instructions. */
static void host_loop(u64 n)
{
	asm volatile("mov %[n], %%rcx\n"
		     "1: dec %%rcx\n\t"
		     "jnz 1b" : : [n]"r"(n) : "rcx", "cc");
}

/* One run of the guest and a loop of the host; what the event counted of it. */
static u64 sample_run(struct sampler *sampler, struct kvm_vcpu *vcpu,
		      u64 host_loops, u64 loops)
{
	u64 before = sampler_count(sampler);
	struct ucall uc;

	guest_loops = loops;
	sync_global_to_guest(vcpu->vm, guest_loops);

	ioctl(sampler->event, PERF_EVENT_IOC_ENABLE, 0);
	vcpu_run(vcpu);
	host_loop(host_loops);
	ioctl(sampler->event, PERF_EVENT_IOC_DISABLE, 0);

	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(uc.cmd, UCALL_SYNC);
	sampler_drain(sampler);
	return sampler_count(sampler) - before;
}

/* Seen to fail when a load leaves in the counters what perf left there. */
TEST(exclude_guest_samples_are_exact_and_guest_reads_nothing_of_them)
{
	const char *missing = pmu_missing();
	struct sampler sampler = {};
	struct kvm_vcpu *vcpu;
	u64 base, count, runs;
	struct kvm_vm *vm;

	if (missing)
		SKIP(return, "%s", missing);

	forbid_throttling();
	pin_self_to_cpu(0);
	vm = pmu_vm_create(&vcpu, guest_count);
	rounds = guest_has_all_counters() ? ROUNDS : ROUNDS_WITH_EXITS;
	sync_global_to_guest(vm, rounds);
	sampler_open(&sampler);

	/* The first time binds symbols. */
	sample_run(&sampler, vcpu, 1, 1);
	base = sample_run(&sampler, vcpu, 1, 1);

	for (runs = 0; runs < RUNS; runs++) {
		count = sample_run(&sampler, vcpu, HOST_LOOPS + runs, 1 + runs);
		count -= base + 2 * (HOST_LOOPS + runs - 1);
		if (count)
			attack_leak(&attack, 0, count);
	}
	EXPECT_EQ(sampler.samples, sampler_count(&sampler) / PERIOD);
	EXPECT_EQ(0, sampler.others);
	EXPECT_EQ(0, attack.leaks);

	count = attack.leaks;
	sync_global_from_guest(vm, attack);
	attack.switches = runs;
	attack.leaks += count + sampler.others;
	report_attack("host-event-beside-guest", &attack);
	EXPECT_EQ(0, attack.leaks);

	sampler_close(&sampler);
	kvm_vm_free(vm);
}

TEST_HARNESS_MAIN
