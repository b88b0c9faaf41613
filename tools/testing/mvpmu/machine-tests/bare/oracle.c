// SPDX-License-Identifier: GPL-2.0
/*
 * What the oracle has to notice of a CPU, whatever instructions an operating system uses. To be run
 * with oracle=note.
 *
 * The comment above a test names a change to the machine that makes it fail.
 */
#include "lbr.h"

#define VIOLATIONS	6

static void guest_1000(void)
{
	asm volatile(".rept 1000; nop; .endr; vmmcall");
}

/* The guest's count stays in counter 0. */
static void leave_something(void)
{
	wrmsr(PERF_CTL(0), INSTRUCTIONS | GUEST_ONLY);
	wrmsr(GLOBAL_CTL, 1);
	guest_run(guest_1000);
	wrmsr(GLOBAL_CTL, 0);
	wrmsr(PERF_CTL(0), 0);
}

static void by_iret(void)
{
	asm volatile("pushq %0; push %1; pushf; pushq %2; push %3; iretq"
		     : : "i"(USER_DATA), "r"(user_stack), "i"(USER_CODE), "r"(user_code));
}

static void by_iret_32(void)
{
	asm volatile("pushq %0; push %1; pushf; pushq %2; push %3; iretq"
		     : : "i"(USER_DATA), "r"(user_stack), "i"(USER_CODE32), "r"(user_code));
}

static void by_short_iret(void)
{
	asm volatile("sub $20, %%rsp; movl %k3, (%%rsp); movl %2, 4(%%rsp); movl $2, 8(%%rsp);"
		     "movl %k1, 12(%%rsp); movl %0, 16(%%rsp); iretl"
		     : : "i"(USER_DATA), "r"(user_stack), "i"(USER_CODE), "r"(user_code) : "memory");
}

static void by_sysret(void)
{
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	wrmsr(MSR_STAR, (uint64_t)USER_CODE32 << 48 | 0x08ULL << 32);
	asm volatile("mov %0, %%rsp; mov $2, %%r11d; sysretq" : : "r"(user_stack), "c"(user_code) : "r11");
}

static void by_sysret_32(void)
{
	asm volatile("mov %0, %%rsp; mov $2, %%r11d; sysretl" : : "r"(user_stack), "c"(user_code) : "r11");
}

static void by_retf(void)
{
	asm volatile("pushq %0; push %1; pushq %2; push %3; lretq"
		     : : "i"(USER_DATA), "r"(user_stack), "i"(USER_CODE), "r"(user_code));
}

static void by_retf_32(void)
{
	asm volatile("pushq %0; push %1; pushq %2; push %3; lretq"
		     : : "i"(USER_DATA), "r"(user_stack), "i"(USER_CODE32), "r"(user_code));
}

/* Break: emit no watching_user(), or only for what IRET leads to. */
static void user_mode(void)
{
	static const struct {
		void (*way)(void);
		const char *name;
	} ways[] = {
		{ by_iret, "IRETQ to user mode" },
		{ by_iret_32, "IRETQ to user mode with 32 bits" },
		{ by_short_iret, "IRETD to user mode" },
		{ by_sysret, "SYSRETQ" },
		{ by_sysret_32, "SYSRETL" },
		{ by_retf, "RETFQ to user mode" },
		{ by_retf_32, "RETFQ to user mode with 32 bits" },
	};
	uint64_t before;

	for (unsigned int i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		leave_something();
		before = machine_count(VIOLATIONS);
		user_run(ways[i].way);
		report(machine_count(VIOLATIONS) - before, 1, ways[i].name);
		wrmsr(PERF_CTR(0), 0);
		user_run(ways[i].way);
		report(machine_count(VIOLATIONS) - before, 1, "with nothing left it is no violation");
	}
}

/*
 * Linux has KVM and its providers among the modules, here: if anything else touches a PMU that is
 * lent, it is a violation. MODULES_MEMORY is RAM that nobody uses.
 */
#define MODULES		0xffffffffa0000000
#define MODULES_MEMORY	0x20000000

static void kvm_init(void)
{
	static __attribute__((aligned(4096))) uint64_t pdpt[512];
	uint64_t *pml4;

	asm("mov %%cr3, %0" : "=r"(pml4));
	pdpt[510] = 0x83;
	pml4[511] = (uint64_t)pdpt | 3;
	for (unsigned int i = 0; i < kvm_code_end - kvm_code; i++)
		((volatile char *)MODULES_MEMORY)[i] = kvm_code[i];
}

static void kvm_wrmsr(uint32_t msr, uint64_t value)
{
	((void (*)(uint32_t, uint64_t))MODULES)(msr, value);
}

static uint64_t kvm_rdmsr(uint32_t msr)
{
	return ((uint64_t (*)(uint32_t))(MODULES + (kvm_rdmsr_code - kvm_code)))(msr);
}

/* The PMIs go to the guest's vector, or are the host's. */
static void lend(bool on)
{
	wrmsr(MSR_X2APIC + (APIC_LVTPC >> 4), on ? 0x41 : LVT_NMI);
}

static void load(uint64_t counter)
{
	lend(true);
	kvm_wrmsr(PERF_CTR(0), counter);
	kvm_wrmsr(PERF_CTL(0), INSTRUCTIONS | GUEST_ONLY);
	kvm_wrmsr(GLOBAL_CTL, 1);
}

static void put(void)
{
	kvm_wrmsr(GLOBAL_CTL, 0);
	kvm_wrmsr(PERF_CTL(0), 0);
	kvm_wrmsr(PERF_CTR(0), 0);
	lend(false);
}

/* Break: have the oracle take what is written while the PMU is lent for the host's. */
static void loaded_but_not_entered(void)
{
	uint64_t before = machine_count(VIOLATIONS);

	lend(true);
	kvm_wrmsr(PERF_CTR(0), 5);
	user_run(by_iret);
	report(machine_count(VIOLATIONS) - before, 1, "user mode after a load without an entry");
	put();
	user_run(by_iret);
	report(machine_count(VIOLATIONS) - before, 1, "and after a put");
}

static void intercept_counters(bool on)
{
	guest_intercept_rdpmc(on);
	for (int n = 0; n < 6; n++)
		guest_intercept_msr(PERF_CTR(n), on);
	for (int n = 0; n < 4; n++)
		guest_intercept_msr(PERF_LEGACY_CTR(n), on);
}

/* Break: have the oracle ask for what the guest can read. */
static void counter_out_of_reach(void)
{
	uint64_t before = machine_count(VIOLATIONS);

	intercept_counters(true);
	load(0);
	guest_run(guest_1000);
	lend(false);
	user_run(by_iret);
	report(machine_count(VIOLATIONS) - before, 1, "what a guest cannot read is its own");
	put();
	intercept_counters(false);
}

/* Break: tell the oracle no address of an instruction; have it ask for none. */
static void other_code(void)
{
	uint64_t before = machine_count(VIOLATIONS);

	load(5);
	kvm_rdmsr(PERF_CTR(0));
	report(machine_count(VIOLATIONS) - before, 0, "KVM reads a counter of the guest");
	rdmsr(PERF_CTR(0));
	report(machine_count(VIOLATIONS) - before, 1, "other code reads it");
	rdpmc(0);
	report(machine_count(VIOLATIONS) - before, 2, "by RDPMC");
	wrmsr(GLOBAL_CTL, 1);
	report(machine_count(VIOLATIONS) - before, 2, "it changes nothing");
	wrmsr(GLOBAL_CTL, 3);
	report(machine_count(VIOLATIONS) - before, 3, "it changes what is enabled");
	put();
	wrmsr(PERF_CTR(0), 7);
	rdmsr(PERF_CTR(0));
	report(machine_count(VIOLATIONS) - before, 3, "a PMU that is not lent is the host's");
	wrmsr(PERF_CTR(0), 0);
}

static void guest_writes(void)
{
	wrmsr(PERF_CTR(0), 77);
	asm volatile("vmmcall");
}

/* Break: asks() of the oracle is not called, or with another value. */
static void what_it_was_left_with(void)
{
	uint64_t before = machine_count(VIOLATIONS);

	load(100);
	guest_run(guest_1000);
	guest_run(guest_1000);
	report(machine_count(VIOLATIONS) - before, 0, "a guest comes back with what it was left with");
	kvm_wrmsr(PERF_CTR(0), 100);
	guest_run(guest_1000);
	report(machine_count(VIOLATIONS) - before, 1, "or does not");
	guest_intercept_msr(PERF_CTR(0), true);
	guest_run(guest_writes);
	kvm_wrmsr(PERF_CTR(0), 77);
	guest_resume(2);
	report(machine_count(VIOLATIONS) - before, 1, "it has asked for it");
	guest_intercept_msr(PERF_CTR(0), false);
	put();
	user_run(by_iret);
	load(500);
	guest_run(guest_1000);
	report(machine_count(VIOLATIONS) - before, 1, "user space may have set it");
	put();
}

/* Break: have the oracle ask for no owner when a counter wraps. */
static void event_into_the_guests_vector(void)
{
	uint64_t before = machine_count(VIOLATIONS);

	wrmsr(PERF_CTR(1), (1ULL << 48) - 1000);
	wrmsr(PERF_CTL(1), INSTRUCTIONS | INT);
	wrmsr(GLOBAL_CTL, 2);
	lend(true);
	run_loop(1000);
	before = machine_count(VIOLATIONS) - before;
	lend(false);
	wrmsr(GLOBAL_CTL, 0);
	wrmsr(PERF_CTL(1), 0);
	wrmsr(PERF_CTR(1), 0);
	wrmsr(STATUS_CLR, 2);
	report(before, 1, "an event of the host overflows into the guest's vector");
}

static void guest_reads_fabric(void)
{
	asm volatile("rdpmc; vmmcall" : : "c"(6) : "eax", "edx");
}

/* Break: have a VM entry say that RDPMC of the guest exits. */
static void what_cpus_count_together(void)
{
	uint64_t before = machine_count(VIOLATIONS);

	guest_run(guest_reads_fabric);
	report(machine_count(VIOLATIONS) - before, 0, "a guest reads a fabric that counts nothing");
	wrmsr(DF_CTR(0), 5);
	guest_run(guest_1000);
	report(machine_count(VIOLATIONS) - before, 1, "a guest could read what the fabric has counted");
	guest_run(guest_reads_fabric);
	report(machine_count(VIOLATIONS) - before, 3, "and does");
	guest_intercept_rdpmc(true);
	guest_run(guest_reads_fabric);
	report(machine_count(VIOLATIONS) - before, 3, "it exits instead");
	guest_intercept_rdpmc(false);
	wrmsr(DF_CTR(0), 0);
}

static void intercept_branches(bool on)
{
	for (int n = 0; n < ENTRIES; n++) {
		guest_intercept_msr(LBR_FROM(n), on);
		guest_intercept_msr(LBR_TO(n), on);
	}
	guest_intercept_msr(LBR_SELECT, on);
	guest_intercept_msr(DEBUG_EXTN_CTL, on);
}

static void guest_jumps(void)
{
	asm volatile("jmp 1f; nop; 1: vmmcall");
}

/* It records its jump on a stack of its own. */
static void leave_branches(void)
{
	*guest_vmcb(VMCB_MISC) = VMCB_LBR;
	*guest_vmcb(VMCB_DBGEXTNCTL) = LBRSE;
	*guest_vmcb(VMCB_SELECT) = JCC;
	guest_run(guest_jumps);
	*guest_vmcb(VMCB_MISC) = 0;
}

/* Break: tell the oracle nothing of what VMRUN loads; what the host writes, stays the guest's. */
static void branches_of_a_guest(void)
{
	uint64_t before = machine_count(VIOLATIONS);

	/* User space may have changed its counters since. */
	user_run(by_iret);
	clear(0);
	leave_branches();
	user_run(by_iret);
	report(machine_count(VIOLATIONS) - before, 0, "branches of a guest may stay");
	report(kvm_rdmsr(LBR_TO(0)) != 0, 1, "there is one");
	report(machine_count(VIOLATIONS) - before, 0, "KVM may read it");
	rdmsr(LBR_TO(0));
	report(machine_count(VIOLATIONS) - before, 1, "other code may not");
	rdmsr(LBR_SELECT);
	report(machine_count(VIOLATIONS) - before, 2, "nor the filter");
	rdmsr(LBR_TO(1));
	report(machine_count(VIOLATIONS) - before, 2, "there is no other branch");
	clear(0);
	wrmsr(LBR_TO(0), VALID);
	rdmsr(LBR_TO(0));
	report(machine_count(VIOLATIONS) - before, 2, "what the host writes is its own");
	clear(0);
	asm volatile(ON "jmp 1f; nop; 1:" OFF : : : CLOBBERS);
	report(entries() > 0, 1, "a branch of the host takes its place");
	report(machine_count(VIOLATIONS) - before, 2, "which the host may read");
}

static void guest_reads_branches(void)
{
	rdmsr(LBR_TO(0));
	asm volatile("vmmcall");
}

/* Break: have a VM entry say that the MSRs are intercepted; that they are not, with LBR virtualization. */
static void branches_of_the_host(void)
{
	uint64_t before = machine_count(VIOLATIONS);

	clear(0);
	guest_run(guest_reads_branches);
	report(machine_count(VIOLATIONS) - before, 0, "a guest reads a stack that has nothing");
	asm volatile(ON "jmp 1f; nop; 1:" OFF : : : CLOBBERS);
	intercept_branches(true);
	guest_run(guest_reads_branches);
	report(machine_count(VIOLATIONS) - before, 0, "one that cannot read branches of the host is entered");
	intercept_branches(false);
	guest_run(guest_1000);
	report(machine_count(VIOLATIONS) - before, 1, "one that could");
	guest_run(guest_reads_branches);
	report(machine_count(VIOLATIONS) - before, 3, "and does");
	*guest_vmcb(VMCB_MISC) = VMCB_LBR;
	guest_run(guest_reads_branches);
	*guest_vmcb(VMCB_MISC) = 0;
	report(machine_count(VIOLATIONS) - before, 3, "one with a stack of its own has nothing of the host");
	clear(0);
	wrmsr(DEBUG_EXTN_CTL, LBRSE);
	guest_run(guest_jumps);
	wrmsr(DEBUG_EXTN_CTL, 0);
	report(machine_count(VIOLATIONS) - before, 4, "DebugExtnCtl of the host is none of the guest's");
	report(entries() > 0, 1, "a host that records has the branches of guests");
	report(machine_count(VIOLATIONS) - before, 4, "and reads them");
	clear(0);
}

static void guest_records(void)
{
	wrmsr(DEBUG_EXTN_CTL, LBRSE);
	asm volatile("jmp 1f; nop; 1: vmmcall");
}

/* Break: have the oracle not told of branches. */
static void recorded_for_a_guest(void)
{
	uint64_t before = machine_count(VIOLATIONS);

	clear(0);
	guest_run(guest_records);
	before = machine_count(VIOLATIONS) - before;
	wrmsr(DEBUG_EXTN_CTL, 0);
	report(before > 0, 1, "branches of the host are recorded for a guest");
	clear(0);
}

/* Break: give the oracle other entries than those that VMRUN has loaded. */
static void branches_it_was_left_with(void)
{
	uint64_t before = machine_count(VIOLATIONS);

	leave_branches();
	leave_branches();
	report(machine_count(VIOLATIONS) - before, 0, "a guest comes back with the branches it was left with");
	*guest_vmcb(VMCB_STACK) += 1;
	leave_branches();
	report(machine_count(VIOLATIONS) - before, 1, "or does not");
	user_run(by_iret);
	*guest_vmcb(VMCB_STACK) += 1;
	leave_branches();
	report(machine_count(VIOLATIONS) - before, 1, "user space may have set them");
	clear(0);
}

int main(void)
{
	interrupts_init();
	svm_init();
	/* What guests are given: counters, not selectors. Performance interrupts are the host's. */
	guest_intercept_msr(PERF_CTL(0), true);
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_EXTD);
	wrmsr(MSR_X2APIC + (APIC_LVTPC >> 4), LVT_NMI);
	kvm_init();
	what_cpus_count_together();
	user_mode();
	loaded_but_not_entered();
	counter_out_of_reach();
	other_code();
	what_it_was_left_with();
	event_into_the_guests_vector();
	branches_of_a_guest();
	branches_of_the_host();
	recorded_for_a_guest();
	branches_it_was_left_with();
	outl(0xf4, report_done() != 0);
	return 0;
}
