// SPDX-License-Identifier: GPL-2.0
/*
 * Attack: a guest looks for traces of others in the registers of its Intel PT and in its
 * buffer, while a victim on the same CPU traces, or an event of the host does.  What is
 * neither its own nor what a register begins with is a leak.
 *
 * The runner's "attackers' control" has it find something: RTIT_STATUS of the victim, which
 * has stopped, and RTIT_OUTPUT_BASE of the host, if a kernel leaves them to the next guest.
 */
#include "attack.h"
#include "guest_pt.h"
#include "harness.h"
#include "pt_packets.h"

#define NR_TURNS	100
#define NR_SYSCALLS	20

#define UNTOUCHED	0xcc
/* What the victim has, and nobody else. */
#define SECRET_RANGE	0x5ec400000000ull
#define SECRET_CR3	0x5ec4000ull

/* Enabled, but neither for the kernel nor for users: no branch is traced. */
#define CTL_NOTHING	(CTL_TRACE_EN | CTL_TOPA | CTL_BRANCH_EN)
/* More branches than there is room for in a page. */
#define NR_BRANCHES	(7 * 4096)
/* All of it, with registers of filters in use; nothing is outside the range. */
#define CTL_SECRET	(CTL_TRACE_EN | CTL_TOPA | CTL_BRANCH_EN | CTL_OS |	\
			 CTL_ADDR_CFG(1, 1))

/* In both guests: the attacker's output, the victim's, and nobody's. */
#define OF_VICTIM	6
static u8 __aligned(4096) output[8][4096];
static u64 __aligned(4096) table[2][512];
static u64 output_gpa, table_gpa;

/* What the attacker does, and what it has found. */
enum { DORMANT, ENABLED, TRACING };
static struct attack attack;

static void exit_by_cpuid(void)
{
	u32 eax, ebx, ecx, edx;

	__cpuid(0, 0, &eax, &ebx, &ecx, &edx);
}

/* Guest: over and over in these pages; the victim's trace stops at the end of its page. */
static void trace_to(unsigned int first, unsigned int nr, u64 ctl)
{
	unsigned int i, of_victim = first == OF_VICTIM;
	u64 gpa = table_gpa + of_victim * sizeof(table[0]);

	for (i = 0; i < nr; i++)
		table[of_victim][i] = output_gpa + (first + i) * sizeof(output[0]);
	if (of_victim)
		table[of_victim][nr - 1] |= TOPA_STOP;
	table[of_victim][nr] = gpa | TOPA_END;
	wrmsr(MSR_IA32_RTIT_CTL, 0);
	wrmsr(MSR_IA32_RTIT_STATUS, 0);
	wrmsr(MSR_IA32_RTIT_OUTPUT_BASE, gpa);
	wrmsr(MSR_IA32_RTIT_OUTPUT_MASK, 0);
	wrmsr(MSR_IA32_RTIT_CTL, ctl);
}

/* Guest: bytes of its trace, if it has not come round to its beginning. */
static u64 written(void)
{
	u64 mask = rdmsr(MSR_IA32_RTIT_OUTPUT_MASK);

	return ((mask & 0xffffffff) >> 7) * sizeof(output[0]) + (mask >> 32);
}

/* Guest: its trace goes on at the end of a turn, and has stopped at the end of the next. */
static void guest_be_attacked(void)
{
	u64 base, turn, nr;

	wrmsr(MSR_IA32_RTIT_CR3_MATCH, SECRET_CR3);
	wrmsr(MSR_IA32_RTIT_ADDR0_A, SECRET_RANGE);
	wrmsr(MSR_IA32_RTIT_ADDR0_B, SECRET_RANGE);
	wrmsr(MSR_IA32_RTIT_ADDR1_A, 0);
	wrmsr(MSR_IA32_RTIT_ADDR1_B, SECRET_RANGE);
	for (turn = 0;; turn++) {
		if (turn % 2) {
			nr = NR_BRANCHES;
			asm volatile("1: dec %0; jnz 1b" : "+r"(nr) : : "cc");
		} else {
			trace_to(OF_VICTIM, 1, CTL_SECRET);
		}
		exit_by_cpuid();
		base = rdmsr(MSR_IA32_RTIT_OUTPUT_BASE);
		GUEST_ASSERT_EQ(base, table_gpa + sizeof(table[0]));
		if (turn % 2)
			GUEST_ASSERT(rdmsr(MSR_IA32_RTIT_STATUS) & STATUS_STOPPED);
		turn_over();
	}
}

/* What may be in the register of an attacker. */
static bool is_own(u32 msr, u64 value, int what)
{
	switch (msr) {
	case MSR_IA32_RTIT_CTL:
		return value == (what == DORMANT ? 0 : what == ENABLED ? CTL_NOTHING :
				 CTL_NOTHING | CTL_OS);
	case MSR_IA32_RTIT_STATUS:
		/* Those that are the CPU's, and how many bytes there were since PSB. */
		return !(value & (STATUS_ERROR | STATUS_STOPPED)) &&
		       (what != DORMANT || !value);
	case MSR_IA32_RTIT_OUTPUT_BASE:
		return value == (what == DORMANT ? 0 : table_gpa);
	case MSR_IA32_RTIT_OUTPUT_MASK:
		return what == DORMANT ? value == 0x7f :
					 (u32)value >> 7 < OF_VICTIM &&
					 value >> 32 <= sizeof(output[0]);
	}
	return !value;
}

/* Those of two ranges. */
#define NR_REGISTERS	9

static void look(int what)
{
	struct pt_summary sum = { };
	unsigned int i;
	u64 value;

	for (i = 0; i < NR_REGISTERS; i++) {
		value = rdmsr(pt_msrs[i]);
		attack.reads++;
		if (!is_own(pt_msrs[i], value, what))
			attack_leak(&attack, pt_msrs[i], value);
	}
	/* There is none of a branch in its own trace, nor anything in the other pages. */
	if (what == ENABLED && (!pt_summarize(&sum, output[0], written()) || sum.ips))
		attack_leak(&attack, sum.packets, sum.ips);
	for (i = what == DORMANT ? 0 : OF_VICTIM * sizeof(output[0]); i < sizeof(output); i++) {
		attack.reads++;
		if (((u8 *)output)[i] != UNTOUCHED)
			attack_leak(&attack, output_gpa + i, ((u8 *)output)[i]);
	}
}

static void guest_attack(int what)
{
	unsigned int turn;

	memset(output, UNTOUCHED, sizeof(output));
	if (what != DORMANT)
		trace_to(0, OF_VICTIM, what == ENABLED ? CTL_NOTHING : CTL_NOTHING | CTL_OS);
	for (turn = 0; turn < NR_TURNS; turn++) {
		look(what);
		turn_over();
		look(what);
		attack.switches++;
	}
	GUEST_DONE();
}

FIXTURE(attack_trace) {
	struct kvm_vcpu *attacker, *victim;
	struct kvm_vm *vm, *vm_of_victim;
};

FIXTURE_VARIANT(attack_trace) {
	int what;
	const char *name;
};

FIXTURE_VARIANT_ADD(attack_trace, dormant) { .what = DORMANT, .name = "dormant" };
FIXTURE_VARIANT_ADD(attack_trace, enabled) { .what = ENABLED, .name = "enabled" };
FIXTURE_VARIANT_ADD(attack_trace, tracing) { .what = TRACING, .name = "tracing" };

static struct kvm_vm *create_vm(struct kvm_vcpu **vcpu, void *code)
{
	struct kvm_vm *vm = pmu_vm_create(vcpu, code);

	output_gpa = addr_gva2gpa(vm, (gva_t)output);
	table_gpa = addr_gva2gpa(vm, (gva_t)table);
	TEST_ASSERT_EQ(addr_gva2gpa(vm, (gva_t)&output[7]), output_gpa + 7 * sizeof(output[0]));
	TEST_ASSERT_EQ(addr_gva2gpa(vm, (gva_t)&table[1]), table_gpa + sizeof(table[0]));
	sync_global_to_guest(vm, output_gpa);
	sync_global_to_guest(vm, table_gpa);
	return vm;
}

FIXTURE_SETUP(attack_trace)
{
	const char *missing = pt_missing();

	if (missing)
		SKIP(return, "%s", missing);
	pin_self_to_cpu(0);
	memset(&attack, 0, sizeof(attack));
	self->vm_of_victim = create_vm(&self->victim, guest_be_attacked);
	self->vm = create_vm(&self->attacker, guest_attack);
	vcpu_args_set(self->attacker, 1, variant->what);
}

FIXTURE_TEARDOWN(attack_trace)
{
	kvm_vm_free(self->vm);
	kvm_vm_free(self->vm_of_victim);
}

static u64 report(struct kvm_vm *vm, const char *by, const char *what)
{
	char name[64];

	sync_global_from_guest(vm, attack);
	snprintf(name, sizeof(name), "%s/%s", by, what);
	report_attack(name, &attack);
	return attack.leaks;
}

TEST_F(attack_trace, guest_finds_none_of_another_guest)
{
	ASSERT_TRUE(run_to_io(self->victim));
	while (run_to_io(self->attacker))
		ASSERT_TRUE(run_to_io(self->victim));
	EXPECT_EQ(0, report(self->vm, "guest-beside-traced-guest", variant->name));
	EXPECT_EQ(NR_TURNS, attack.switches);
}

TEST_F(attack_trace, guest_finds_none_of_the_host)
{
	struct perf_event_attr attr = { };
	struct host_pt trace = open_host_pt(&attr, 1 << 22, -1);
	unsigned int i;

	trace.drops = true;
	TEST_ASSERT(!ioctl(trace.fd, PERF_EVENT_IOC_ENABLE, 0), "Enabling the event");
	while (run_to_io(self->attacker)) {
		for (i = 0; i < NR_SYSCALLS; i++)
			syscall(SYS_getppid);
		EXPECT_EQ(0, ioctl(trace.fd, PERF_EVENT_IOC_DISABLE, 0));
		read_host_pt(&trace);
		EXPECT_EQ(0, ioctl(trace.fd, PERF_EVENT_IOC_ENABLE, 0));
	}
	EXPECT_LT(0, trace.traced);
	close_host_pt(&trace);
	EXPECT_EQ(0, report(self->vm, "guest-beside-traced-host", variant->name));
	EXPECT_EQ(NR_TURNS, attack.switches);
}

TEST_HARNESS_MAIN
