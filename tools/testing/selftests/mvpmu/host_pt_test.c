// SPDX-License-Identifier: GPL-2.0
/*
 * An event of Intel PT on the host, and guests that have a PT of their own: VM entry
 * loads RTIT_CTL then, and fails if TraceEn is set before it.
 *
 * NMIs want to set it again between the one and the other: PMIs of PT, and those of
 * counters, which pause and resume the trace.
 */
#include "guest_pt.h"
#include "harness.h"
#include "pt_packets.h"

/* Of each guest; a hundred times as many with the argument "long", of one of the tests. */
#define NR_EXITS	1000

#define AUX_SIZE	(1 << 24)
/* Of a trace that is read all the time, and after how much of it there is a PMI. */
#define SMALL_AUX_SIZE	(1 << 18)
#define WATERMARK	4096
/* Of the trace in each sample. */
#define SAMPLE_SIZE	512
/* Periods of those that pause and resume, in instructions: no multiples. */
#define PAUSE_EACH	1499
#define RESUME_EACH	997

static u64 nr_exits = NR_EXITS;
static u64 output_gpa, table_gpa;
static u8 __aligned(4096) output[4096];
static u64 __aligned(4096) table[512];

static void exit_often(void)
{
	u32 eax, ebx, ecx, edx;
	u64 i;

	for (i = 0; i < nr_exits; i++) {
		__cpuid(0, 0, &eax, &ebx, &ecx, &edx);
		if (i % 16 == 0)
			asm volatile("outb %%al, %%dx" : : "a"(0), "d"(TEST_PORT));
	}
}

static void guest_exits_often(void)
{
	exit_often();
	GUEST_DONE();
}

/* Over and over in one page. */
static void guest_traces(void)
{
	u64 ctl = CTL_TRACE_EN | CTL_TOPA | CTL_BRANCH_EN | CTL_OS;

	table[0] = output_gpa;
	table[1] = table_gpa | TOPA_END;
	wrmsr(MSR_IA32_RTIT_OUTPUT_BASE, table_gpa);
	wrmsr(MSR_IA32_RTIT_OUTPUT_MASK, 0);
	wrmsr(MSR_IA32_RTIT_CTL, ctl);
	exit_often();
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_CTL), ctl);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_OUTPUT_BASE), table_gpa);
	wrmsr(MSR_IA32_RTIT_CTL, 0);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_STATUS) & (STATUS_ERROR | STATUS_STOPPED), 0);
	GUEST_DONE();
}

FIXTURE(host_pt) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	struct host_pt trace;
};

FIXTURE_VARIANT(host_pt) {
	void *guest;
};

FIXTURE_VARIANT_ADD(host_pt, beside_a_guest_that_traces) { .guest = guest_traces };
FIXTURE_VARIANT_ADD(host_pt, beside_a_guest_that_does_not) { .guest = guest_exits_often };

FIXTURE_SETUP(host_pt)
{
	const char *missing = pt_missing();

	if (missing)
		SKIP(return, "%s", missing);
	pin_self_to_cpu(0);
	self->vm = pmu_vm_create(&self->vcpu, variant->guest);
	output_gpa = addr_gva2gpa(self->vm, (gva_t)output);
	table_gpa = addr_gva2gpa(self->vm, (gva_t)table);
	sync_global_to_guest(self->vm, output_gpa);
	sync_global_to_guest(self->vm, table_gpa);
	sync_global_to_guest(self->vm, nr_exits);
}

FIXTURE_TEARDOWN(host_pt)
{
	kvm_vm_free(self->vm);
}

static void read_at_io(struct kvm_vcpu **vcpu, unsigned int nr, void *data)
{
	read_host_pt(data);
}

static void start(struct host_pt *trace)
{
	TEST_ASSERT(!ioctl(trace->fd, PERF_EVENT_IOC_ENABLE, 0), "Enabling the event");
}

/* Without a guest there is no gap. */
static void expect_no_gap(struct host_pt *trace)
{
	unsigned int partial;

	read_host_pt(trace);
	partial = trace->partial;
	start(trace);
	TEST_ASSERT(!ioctl(trace->fd, PERF_EVENT_IOC_DISABLE, 0), "Disabling the event");
	read_host_pt(trace);
	TEST_ASSERT(trace->partial == partial, "A gap without a guest");
}

/*
 * Seen to fail when the driver does not stop the trace (VM entry fails), when it
 * does not say so (no gap).
 */
TEST_F(host_pt, has_a_gap_and_entry_does_not_fail)
{
	struct perf_event_attr attr = { };

	self->trace = open_host_pt(&attr, AUX_SIZE, -1);
	self->trace.drops = true;
	start(&self->trace);
	EXPECT_FALSE(run_guest_io(&self->vcpu, NULL, read_at_io, &self->trace));
	EXPECT_EQ(0, ioctl(self->trace.fd, PERF_EVENT_IOC_DISABLE, 0));
	read_host_pt(&self->trace);
	EXPECT_LE(1, self->trace.partial);
	EXPECT_EQ(0, self->trace.truncated);
	expect_no_gap(&self->trace);
	ksft_print_msg("%lu exits, %lu bytes, %u records\n", nr_exits, self->trace.traced,
		       self->trace.records);
	close_host_pt(&self->trace);
}

/* A trace of the kernel: those of a guest would be others. */
static void expect_no_guest(struct host_pt *trace)
{
	struct pt_summary sum = { };

	read_host_pt(trace);
	TEST_ASSERT(!trace->truncated, "The trace was cut");
	TEST_ASSERT(pt_summarize(&sum, trace->trace, trace->traced),
		    "The trace is no packets after %lu", sum.packets);
	TEST_ASSERT(sum.psb && !sum.ovf, "%lu PSB, %lu OVF", sum.psb, sum.ovf);
	TEST_ASSERT(sum.ips && sum.ips == sum.high_ips,
		    "%lu addresses, %lu of a kernel", sum.ips, sum.high_ips);
	TEST_ASSERT(!sum.non_root, "%lu times in a guest", sum.non_root);
}

/* With PMIs in between. */
TEST_F(host_pt, is_of_the_host_and_nothing_is_lost)
{
	struct perf_event_attr attr = { .exclude_user = 1, .aux_watermark = WATERMARK };

	self->trace = open_host_pt(&attr, SMALL_AUX_SIZE, -1);
	start(&self->trace);
	while (run_guest_io(&self->vcpu, NULL, read_at_io, &self->trace))
		read_host_pt(&self->trace);
	EXPECT_EQ(0, ioctl(self->trace.fd, PERF_EVENT_IOC_DISABLE, 0));
	expect_no_guest(&self->trace);
	EXPECT_LE(self->trace.traced / WATERMARK / 4, self->trace.records);
	EXPECT_LE(1, self->trace.partial);
	ksft_print_msg("%lu bytes, %u records\n", self->trace.traced, self->trace.records);
	close_host_pt(&self->trace);
}

static int open_member(struct perf_event_attr attr, int leader)
{
	int fd;

	attr.type = PERF_TYPE_HARDWARE;
	attr.config = PERF_COUNT_HW_INSTRUCTIONS;
	attr.size = sizeof(attr);
	attr.exclude_guest = 1;
	attr.sample_type |= PERF_SAMPLE_IP;
	fd = syscall(SYS_perf_event_open, &attr, -1, 0, leader, 0);
	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("perf_event_open", fd));
	return fd;
}

/*
 * Their NMIs come so often that perf throttles the group, too, which stops it.  Seen to
 * fail when NMIs that resume the trace do so at once, and when those that stop it do.
 */
TEST_F(host_pt, can_be_paused_and_resumed_at_any_time)
{
	struct perf_event_attr attr = { .aux_start_paused = 1 };
	struct perf_event_attr resume = { .sample_period = RESUME_EACH, .aux_resume = 1 };
	struct perf_event_attr pause = { .sample_period = PAUSE_EACH, .aux_pause = 1 };
	int members[2];

	self->trace = open_host_pt(&attr, AUX_SIZE, -1);
	members[0] = open_member(resume, self->trace.fd);
	members[1] = open_member(pause, self->trace.fd);
	start(&self->trace);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	EXPECT_EQ(0, ioctl(self->trace.fd, PERF_EVENT_IOC_DISABLE, 0));
	read_host_pt(&self->trace);
	EXPECT_LE(1, self->trace.partial);
	close(members[0]);
	close(members[1]);
	close_host_pt(&self->trace);
}

/*
 * The samples of a counter have what was traced last, from a buffer that is written over
 * and over.
 */
TEST_F(host_pt, can_be_sampled_at_any_time)
{
	struct perf_event_attr attr = { .exclude_user = 1 };
	struct perf_event_attr sample = {
		.sample_period = RESUME_EACH,
		.sample_type = PERF_SAMPLE_AUX,
		.aux_sample_size = SAMPLE_SIZE,
	};
	int member;

	self->trace = open_host_pt_with(&attr, SMALL_AUX_SIZE, -1, PROT_READ);
	member = open_member(sample, self->trace.fd);
	TEST_ASSERT(!ioctl(member, PERF_EVENT_IOC_SET_OUTPUT, self->trace.fd), "SET_OUTPUT");
	start(&self->trace);
	EXPECT_FALSE(run_guest_io(&self->vcpu, NULL, read_at_io, &self->trace));
	EXPECT_EQ(0, ioctl(self->trace.fd, PERF_EVENT_IOC_DISABLE, 0));
	read_host_pt(&self->trace);
	EXPECT_LE(1, self->trace.samples);
	EXPECT_EQ(0, self->trace.misplaced);
	ksft_print_msg("%u samples\n", self->trace.samples);
	close(member);
	close_host_pt(&self->trace);
}

int main(int argc, char **argv)
{
	/* In place of "long", for the harness. */
	if (argc == 2 && !strcmp(argv[1], "long")) {
		nr_exits *= 100;
		argv[1] = "-thas_a_gap_and_entry_does_not_fail";
	}
	return test_harness_run(argc, argv);
}
