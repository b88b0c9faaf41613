// SPDX-License-Identifier: GPL-2.0
/*
 * A trace of the host's branches (BTS), which raises the same interrupt as the
 * counters, and a guest that counts.  PERF_PMU_CAP_MEDIATED_VPMU has perf treat the
 * trace as it treats the events of the counters.
 *
 * A trace that is on while the PMU is the guest's is what the machine's oracle
 * stops the run for.
 */
#include <fcntl.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "apic.h"
#include "harness.h"
#include "payload.h"

#define BTS_TYPE	"/sys/bus/event_source/devices/intel_bts/type"

#define DEBUGCTL_TRACE	(BIT_ULL(6) | BIT_ULL(7))	/* TR, BTS */

#define NR_LOOPS	1000
#define NR_EXITS	200
/* Of the trace: all that this process and KVM do in a test. */
#define AUX_SIZE	(4 << 20)
#define DATA_PAGES	8
/* An interrupt after so many bytes of it: many while the guest counts. */
#define WATERMARK	16384

struct record {
	u64 from, to, flags;
};

struct trace {
	int fd;
	struct perf_event_mmap_page *page;
	const struct record *records;
};

static int trace_type(void)
{
	FILE *file = fopen(BTS_TYPE, "r");
	int type = -1;

	if (file) {
		if (fscanf(file, "%d", &type) != 1)
			type = -1;
		fclose(file);
	}
	return type;
}

/* A trace of this thread, disabled; or -errno. */
static int open_trace(bool exclude_guest)
{
	struct perf_event_attr attr = {
		.type = trace_type(),
		.size = sizeof(attr),
		.disabled = 1,
		.exclude_guest = exclude_guest,
		.aux_watermark = WATERMARK,
	};
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);

	return fd < 0 ? -errno : fd;
}

/* Whether it could be opened: 0 or the errno. */
static int try_trace(bool exclude_guest)
{
	int fd = open_trace(exclude_guest);

	if (fd < 0)
		return -fd;
	close(fd);
	return 0;
}

static struct trace map_trace(int fd)
{
	struct trace trace = { .fd = fd };
	size_t size = (1 + DATA_PAGES) * getpagesize();

	trace.page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	TEST_ASSERT(trace.page != MAP_FAILED, "mmap of the data");
	trace.page->aux_offset = size;
	trace.page->aux_size = AUX_SIZE;
	trace.records = mmap(NULL, AUX_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, size);
	TEST_ASSERT(trace.records != MAP_FAILED, "mmap of the trace");
	return trace;
}

static void unmap_trace(struct trace *trace)
{
	munmap((void *)trace->records, AUX_SIZE);
	munmap(trace->page, (1 + DATA_PAGES) * getpagesize());
	close(trace->fd);
}

extern char trace_loop[], trace_branch[];

/* @n branches, the last of which is not taken. */
static __attribute__((noipa)) void run_loop(u64 n)
{
	asm volatile(".globl trace_loop, trace_branch\n"
		     "trace_loop: dec %0\n"
		     "trace_branch: jnz trace_loop"
		     : "+r"(n) : : "cc");
}

/* How often that branch was taken, says the trace. */
static u64 loops_traced(const struct trace *trace)
{
	u64 i, n = 0;

	for (i = 0; i < trace->page->aux_head / sizeof(struct record); i++)
		n += trace->records[i].from == (u64)trace_branch &&
		     trace->records[i].to == (u64)trace_loop;
	return n;
}

static u64 read_debugctl(void)
{
	u64 value;
	int fd = open("/dev/cpu/0/msr", O_RDONLY);

	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("/dev/cpu/0/msr", fd));
	TEST_ASSERT(pread(fd, &value, sizeof(value), MSR_IA32_DEBUGCTLMSR) == sizeof(value),
		    "RDMSR of DEBUGCTL");
	close(fd);
	return value;
}

static const struct payload cpuid_exits = PAYLOAD_CPUID;

/* The guest's: of the host's trace none. */
static unsigned int nr_pmis;

static void guest_pmi(struct ex_regs *regs)
{
	nr_pmis++;
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	x2apic_write_reg(APIC_EOI, 0);
}

static void guest_count(void)
{
	x2apic_enable();
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	asm volatile("sti");

	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	cpuid_exits.measure(counter_bit(0), NR_EXITS);
	GUEST_ASSERT_EQ(pmc_read(0), payload_count(&cpuid_exits, INSTRUCTIONS, NR_EXITS));
	GUEST_ASSERT_EQ(rdmsr(vendor->global_status), 0);
	GUEST_ASSERT_EQ(nr_pmis, 0);
	GUEST_DONE();
}

FIXTURE(host_trace) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(host_trace)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
	if (trace_type() < 0)
		SKIP(return, "the CPU stores no trace of branches");
	pin_self_to_cpu(0);
}

FIXTURE_TEARDOWN(host_trace)
{
	if (self->vm)
		kvm_vm_free(self->vm);
}

static struct kvm_vm *create_vm(struct kvm_vcpu **vcpu)
{
	struct kvm_vm *vm = pmu_vm_create(vcpu, guest_count);

	vm_install_exception_handler(vm, PMI_VECTOR, guest_pmi);
	return vm;
}

/* Has to fail when perf does not treat the trace as it treats the counters. */
TEST_F(host_trace, that_would_trace_guests_is_refused_while_a_vm_exists)
{
	EXPECT_EQ(0, try_trace(false));
	self->vm = create_vm(&self->vcpu);
	EXPECT_EQ(EOPNOTSUPP, try_trace(false));
	EXPECT_EQ(0, try_trace(true));
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	EXPECT_EQ(EOPNOTSUPP, try_trace(false));

	kvm_vm_free(self->vm);
	self->vm = NULL;
	EXPECT_EQ(0, try_trace(false));
}

/*
 * Has to fail, by its counts, when perf does not treat the trace as it treats the
 * counters: the guest's state then stays in hardware, as if nobody wanted the PMU.
 * By the oracle it has to fail then, too, and when KVM takes its snapshot of DEBUGCTL
 * before the trace is stopped.
 */
TEST_F(host_trace, has_the_pmu_whenever_the_guest_is_out)
{
	struct trace trace;
	u64 loads;
	int fd;

	self->vm = create_vm(&self->vcpu);
	fd = open_trace(true);
	ASSERT_LE(0, fd);
	trace = map_trace(fd);
	EXPECT_EQ(0, read_debugctl() & DEBUGCTL_TRACE);

	ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
	EXPECT_EQ(DEBUGCTL_TRACE, read_debugctl() & DEBUGCTL_TRACE);
	run_loop(NR_LOOPS);
	loads = pmu_loads(self->vcpu);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	loads = pmu_loads(self->vcpu) - loads;
	EXPECT_EQ(DEBUGCTL_TRACE, read_debugctl() & DEBUGCTL_TRACE);
	run_loop(NR_LOOPS);
	ioctl(fd, PERF_EVENT_IOC_DISABLE, 0);
	EXPECT_EQ(0, read_debugctl() & DEBUGCTL_TRACE);

	EXPECT_LE(NR_EXITS, loads);
	EXPECT_EQ(2 * (NR_LOOPS - 1), loops_traced(&trace));
	EXPECT_GT(AUX_SIZE, trace.page->aux_head);
	unmap_trace(&trace);
}

TEST_HARNESS_MAIN
