// SPDX-License-Identifier: GPL-2.0
/*
 * A guest traces itself with Intel PT, into memory of its own: all that it does and
 * nothing that anybody else does, and it gets the PMIs of that.
 */
#include "apic.h"
#include "guest_pt.h"
#include "harness.h"
#include "pt_packets.h"

#define NR_PAGES	4
#define NR_LOOPS	500
/* Each is a bit: more than a page of six bits a byte. */
#define NR_FULL		(2 * 4096 * 6)

#define UNTOUCHED	0xcc

#define CTL_KERNEL	(CTL_TRACE_EN | CTL_TOPA | CTL_BRANCH_EN | CTL_OS)

static u8 __aligned(4096) output[NR_PAGES][4096];
static u64 __aligned(4096) table[512];

/* Physical addresses, for the guest; that of no memory. */
static u64 output_gpa[NR_PAGES], table_gpa, nowhere;
/* A counter of the guest counts all the time. */
static bool counts;

static u64 nr_pmis, status_of_pmi;

static void guest_pmi(struct ex_regs *regs)
{
	nr_pmis++;
	status_of_pmi = rdmsr(MSR_CORE_PERF_GLOBAL_STATUS);
	wrmsr(MSR_CORE_PERF_GLOBAL_OVF_CTRL, STATUS_TOPA_PMI);
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	x2apic_write_reg(APIC_EOI, 0);
}

/* Guest: a ring of all pages, the bits of whose entries are @bits. */
static void prepare(const u64 *bits)
{
	unsigned int i;

	x2apic_enable();
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	asm volatile("sti");
	memset(output, UNTOUCHED, sizeof(output));
	for (i = 0; i < NR_PAGES; i++)
		table[i] = output_gpa[i] | bits[i];
	table[NR_PAGES] = table_gpa | TOPA_END;
	pmu_reset();
	if (counts) {
		pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
		wrmsr(vendor->global_control, counter_bit(0));
	}
	wrmsr(MSR_IA32_RTIT_STATUS, 0);
	wrmsr(MSR_IA32_RTIT_OUTPUT_BASE, table_gpa);
	wrmsr(MSR_IA32_RTIT_OUTPUT_MASK, 0);
}

/* Bytes that were written, of a trace that has not come round to its beginning. */
static u64 written(void)
{
	u64 mask = rdmsr(MSR_IA32_RTIT_OUTPUT_MASK);

	return ((mask & 0xffffffff) >> 7) * 4096 + (mask >> 32);
}

/*
 * All that is traced: @n times a conditional branch, which is not taken the last time.
 * @body has none.
 */
#define TRACE_LOOP(n, body)						\
do {									\
	register u64 __n asm("r8") = (n);				\
									\
	asm volatile("wrmsr\n"						\
		     "1: " body "\n\t"					\
		     "dec %%r8\n\t"					\
		     "jnz 1b\n\t"					\
		     "mov $0x570, %%ecx\n\t"				\
		     "xor %%eax, %%eax\n\t"				\
		     "xor %%edx, %%edx\n\t"				\
		     "wrmsr"						\
		     : "+a"((u32){CTL_KERNEL}), "+d"((u32){0}),		\
		       "+c"((u32){MSR_IA32_RTIT_CTL}), "+r"(__n)	\
		     : : "rbx", "cc", "memory");			\
} while (0)

static void trace_loop(u64 n)
{
	TRACE_LOOP(n, "");
}

/* The same with exits, in the kernel and to userspace. */
static void trace_cpuid(u64 n)
{
	TRACE_LOOP(n, "xor %%eax, %%eax\n\tcpuid");
}

static void trace_io(u64 n)
{
	TRACE_LOOP(n, "mov $0x1234, %%edx\n\tout %%al, %%dx");
}

static void check_trace(u64 n)
{
	struct pt_summary sum = { };
	const u8 *trace = output[0];
	u64 size = written(), i;

	GUEST_ASSERT(size && size < sizeof(output));
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_STATUS) & (STATUS_ERROR | STATUS_STOPPED), 0);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_OUTPUT_BASE), table_gpa);
	GUEST_ASSERT(pt_summarize(&sum, trace, size));
	GUEST_ASSERT_NE(sum.psb, 0);
	GUEST_ASSERT_EQ(sum.ovf, 0);
	GUEST_ASSERT_EQ(sum.taken, n - 1);
	GUEST_ASSERT_EQ(sum.not_taken, 1);
	/* Nothing is the host's, nor is there a trace of it. */
	GUEST_ASSERT_EQ(sum.high_ips, 0);
	GUEST_ASSERT_EQ(sum.non_root, 0);
	GUEST_ASSERT_EQ(sum.vmcs, 0);
	for (i = size; i < sizeof(output); i++)
		GUEST_ASSERT_EQ(trace[i], UNTOUCHED);
}

static void guest_traces(void)
{
	static const u64 none[NR_PAGES];
	static void (*const loops[])(u64) = { trace_loop, trace_cpuid, trace_io };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(loops); i++) {
		prepare(none);
		loops[i](NR_LOOPS);
		check_trace(NR_LOOPS);
		GUEST_ASSERT_EQ(nr_pmis, 0);
		GUEST_SYNC(i);
	}
	GUEST_DONE();
}

/* The first page wants a PMI, the second is the last one. */
static void guest_fills(void)
{
	static const u64 bits[NR_PAGES] = { TOPA_INT, TOPA_STOP };
	u64 i;

	prepare(bits);
	trace_loop(NR_FULL);
	GUEST_ASSERT_EQ(nr_pmis, 1);
	GUEST_ASSERT_EQ(status_of_pmi, STATUS_TOPA_PMI);
	GUEST_ASSERT_EQ(rdmsr(MSR_CORE_PERF_GLOBAL_STATUS), 0);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_STATUS) & (STATUS_ERROR | STATUS_STOPPED),
			STATUS_STOPPED);
	GUEST_ASSERT_EQ(written(), 2 * 4096);
	for (i = 0; i < 4096; i++) {
		GUEST_ASSERT_EQ(output[2][i], UNTOUCHED);
		GUEST_ASSERT_EQ(output[3][i], UNTOUCHED);
	}
	/* Userspace takes it up here. */
	GUEST_SYNC(0);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_STATUS) & STATUS_STOPPED, STATUS_STOPPED);
	GUEST_ASSERT_EQ(written(), 2 * 4096);
	GUEST_ASSERT_EQ(nr_pmis, 1);
	GUEST_DONE();
}

/* Output that is not the guest's memory: an error, nothing else. */
static void guest_misses(void)
{
	static const u64 none[NR_PAGES];
	unsigned int i;

	prepare(none);
	table[0] = nowhere;
	trace_loop(NR_LOOPS);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_RTIT_STATUS) & STATUS_ERROR, STATUS_ERROR);
	GUEST_ASSERT_EQ(nr_pmis, 0);
	for (i = 0; i < NR_PAGES; i++)
		GUEST_ASSERT_EQ(output[i][0], UNTOUCHED);

	/* It is as good as new afterwards. */
	prepare(none);
	trace_loop(NR_LOOPS);
	check_trace(NR_LOOPS);
	GUEST_DONE();
}

FIXTURE(traced_guest) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(traced_guest) {
	bool counts;
	/* An event of the host traces, too. */
	bool host;
};

FIXTURE_VARIANT_ADD(traced_guest, alone) { };
FIXTURE_VARIANT_ADD(traced_guest, that_counts) { .counts = true };
FIXTURE_VARIANT_ADD(traced_guest, beside_the_host) { .host = true };
FIXTURE_VARIANT_ADD(traced_guest, that_counts_beside_the_host) { .counts = true, .host = true };

FIXTURE_SETUP(traced_guest)
{
	const char *missing = pt_missing();

	if (missing)
		SKIP(return, "%s", missing);
	pin_self_to_cpu(0);
}

FIXTURE_TEARDOWN(traced_guest)
{
	kvm_vm_free(self->vm);
}

static struct kvm_vm *create_vm(struct kvm_vcpu **vcpu, void *code)
{
	struct kvm_vm *vm = pmu_vm_create(vcpu, code);
	unsigned int i;

	for (i = 0; i < NR_PAGES; i++)
		output_gpa[i] = addr_gva2gpa(vm, (gva_t)output[i]);
	table_gpa = addr_gva2gpa(vm, (gva_t)table);
	/* Behind all of it. */
	nowhere = 0xc0000000;
	sync_global_to_guest(vm, output_gpa);
	sync_global_to_guest(vm, table_gpa);
	sync_global_to_guest(vm, nowhere);
	sync_global_to_guest(vm, counts);
	vm_install_exception_handler(vm, PMI_VECTOR, guest_pmi);
	return vm;
}

static void run(struct kvm_vcpu *vcpu, bool host)
{
	struct perf_event_attr attr = { };
	struct host_pt trace;

	if (!host) {
		while (run_guest(vcpu, NULL))
			;
		return;
	}
	trace = open_host_pt(&attr, 1 << 22, -1);
	TEST_ASSERT(!ioctl(trace.fd, PERF_EVENT_IOC_ENABLE, 0), "Enabling the event");
	while (run_guest(vcpu, NULL))
		read_host_pt(&trace);
	close_host_pt(&trace);
}

TEST_F(traced_guest, has_all_of_it_and_nothing_else)
{
	counts = variant->counts;
	self->vm = create_vm(&self->vcpu, guest_traces);
	run(self->vcpu, variant->host);
}

TEST_F(traced_guest, gets_a_pmi_of_a_full_region)
{
	counts = variant->counts;
	self->vm = create_vm(&self->vcpu, guest_fills);
	run(self->vcpu, variant->host);
}

TEST_F(traced_guest, has_an_error_of_an_output_that_is_no_memory)
{
	counts = variant->counts;
	self->vm = create_vm(&self->vcpu, guest_misses);
	run(self->vcpu, variant->host);
}

TEST_HARNESS_MAIN
