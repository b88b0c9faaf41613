// SPDX-License-Identifier: GPL-2.0
/*
 * The last branch record stack: each branch that is taken is there, in order, and nothing else.
 *
 * The comment above a test names a change to the machine that makes it fail.
 */
#include "lbr.h"

/* A page fault goes on where R9 says, #DB without single steps. */
extern char on_page_fault[], on_page_fault_iret[], on_debug[], on_debug_iret[];
asm(".pushsection .text\n"
    "on_page_fault: add $8, %rsp; mov %r9, (%rsp); on_page_fault_iret: iretq\n"
    "on_debug: andq $~0x100, 16(%rsp); on_debug_iret: iretq\n"
    ".popsection");

static void set_reserved(void)
{
	asm volatile("wrmsr" : : "c"(DEBUG_EXTN_CTL), "a"(LBRSE | 1), "d"(0));
}

static void set_reserved_high(void)
{
	asm volatile("wrmsr" : : "c"(DEBUG_EXTN_CTL), "a"(LBRSE), "d"(1));
}

/* Break: leaf::announce() has another bit or number, or msr::execute() leaves an MSR to QEMU. */
static void registers(void)
{
	uint64_t eax = 0x80000022, ebx, ecx = 0, edx, sum = 0;

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	report(eax & 7, 7, "CPUID: PerfMonV2, LBR stack, freezing");
	report(ebx >> 4 & 0x3f, ENTRIES, "of 16 entries");
	eax = 0x8000000a;
	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	report(edx >> 1 & 1, 1, "SVM switches it");

	for (int n = 0; n < ENTRIES; n++)
		sum |= from(n) | to(n);
	report(sum | rdmsr(LBR_SELECT) | rdmsr(DEBUG_EXTN_CTL), 0, "after RESET all is clear");
	wrmsr(LBR_SELECT, ~0ULL);
	report(rdmsr(LBR_SELECT), 0x1ff, "of the filter there are nine bits");
	report(faults(set_reserved), 1, "a reserved bit is #GP");
	report(faults(set_reserved_high), 1, "in the upper half, too");
	report(rdmsr(DEBUG_EXTN_CTL), 0, "and nothing is written");

	clear(0);
	for (int n = 0; n < ENTRIES; n++) {
		wrmsr(LBR_FROM(n), 0x100 + n);
		wrmsr(LBR_TO(n), 0x200 + n);
	}
	for (int n = 0; n < ENTRIES; n++)
		sum |= from(n) != 0x100 + (uint64_t)n || to(n) != 0x200 + (uint64_t)n;
	report(sum, 0, "software writes entries");
	clear(0);
}

extern char k_jmp[], k_jcc[], k_loop[], k_call[], k_called[], k_ret[], k_called_to[], k_jmp_ind[],
	k_call_ind[], k_call_ind_to[], k_far_ret[], k_end[], k_1[], k_2[], k_3[], k_4[], k_5[], k_6[];
static const struct branch kinds[] = {
	{ k_jmp, k_1, KERNEL | JMP_REL, 0 },
	{ k_jcc, k_2, KERNEL | JCC, 0 },
	{ k_loop, k_3, KERNEL | JCC, 0 },
	{ k_call, k_called, KERNEL | CALL_REL, 0 },
	{ k_ret, k_4, KERNEL | RET, 0 },
	{ k_jmp_ind, k_5, KERNEL | JMP_IND, MISPREDICTED },
	{ k_call_ind, k_called, KERNEL | CALL_IND, MISPREDICTED },
	{ k_ret, k_6, KERNEL | RET, 0 },
	{ k_far_ret, k_end, KERNEL | FAR, 0 },
};
#define KINDS	(sizeof(kinds) / sizeof(kinds[0]))

/* One of each, and some that are not taken. */
static __attribute__((noinline)) void run_kinds(void)
{
	asm volatile(ON
		     "k_jmp: jmp k_1; nop; k_1: test %%eax, %%eax; jz 1f; k_jcc: jnz k_2; nop; 1: nop;"
		     "k_2: mov $2, %%ecx; jrcxz 1b; k_loop: loop k_3; nop; k_3: loop 1b;"
		     "k_call: call k_called;"
		     "k_4: lea k_5(%%rip), %%r8; k_jmp_ind: jmp *%%r8; nop;"
		     "k_5: lea k_called(%%rip), %%r8; k_call_ind: call *%%r8;"
		     "k_6: pushq $0x08; lea k_end(%%rip), %%r8; push %%r8; k_far_ret: lretq;"
		     "k_called: nop; k_ret: ret;"
		     "k_end:" OFF
		     : : : CLOBBERS);
}

/* Break: settle_branch() takes each conditional branch for taken, or branch_kind() a call for a jump. */
static void each_kind(void)
{
	clear(0);
	run_kinds();
	expect(kinds, KINDS, 0, "each kind of branch is recorded, the newest first");
	for (int bit = 0; bit < 9; bit++) {
		clear(1 << bit);
		run_kinds();
		expect(kinds, KINDS, 1 << bit, "a filter leaves out its kind");
	}
}

extern char chain[];

/* Break: Lbr::record() moves the other way. */
static void wrap(void)
{
	uint64_t wrong = 0;

	clear(0);
	asm volatile(ON "chain: .rept 40; jmp 1f; nop; 1:; .endr;" OFF : : : CLOBBERS);
	for (int n = 0; n < ENTRIES; n++) {
		uint64_t at = (uint64_t)chain + 3 * (39 - n);

		wrong |= !is(n, at, at + 3);
	}
	report(wrong, 0, "the last 16 of 40 branches are there, in order");
	asm volatile(".rept 40; jmp 1f; nop; 1:; .endr");
	report(from(0), (uint64_t)chain + 3 * 39, "what comes while it is off is not");
}

extern char same_loop[], same_jnz[];

/* Break: emit.branches() is registered behind what leaves the block. */
static void loops(void)
{
	uint64_t wrong = 0;

	clear(0);
	asm volatile(ON "mov $1000, %%r8d; same_loop: dec %%r8d; same_jnz: jnz same_loop;" OFF : : : CLOBBERS);
	for (int n = 0; n < ENTRIES; n++)
		wrong |= !is(n, (uint64_t)same_jnz, (uint64_t)same_loop);
	report(wrong, 0, "a loop has filled it");

	clear(JCC);
	wrmsr(GLOBAL_CTL, 0);
	wrmsr(PERF_CTL(0), INSTRUCTIONS);
	wrmsr(PERF_CTR(0), 0);
	wrmsr(DEBUG_EXTN_CTL, LBRSE);
	wrmsr(GLOBAL_CTL, 1);
	run_loop(100);
	wrmsr(GLOBAL_CTL, 0);
	report(rdpmc(0) > 200 && rdpmc(0) < 230, 1, "what is counted is not changed by it");
	wrmsr(DEBUG_EXTN_CTL, 0);
}

extern char int_from[], int_to[];

/* Break: happened() does not call event_taken(). */
static void software_interrupt(void)
{
	const struct branch expected[] = {
		{ int_from, on_interrupt, KERNEL | FAR, 0 },
		{ on_interrupt, int_to, KERNEL | FAR, 0 },
	};

	set_handler(0x45, on_interrupt);
	clear(0);
	asm volatile(ON "int_from: int $0x45; int_to:" OFF : : : CLOBBERS);
	expect(expected, 2, 0, "INT and IRET are recorded");
}

extern char sti_jmp[], sti_to[];

/* Break: event_taken() does not call settle_branch(), or takes where the interrupt leads for its target. */
static void interrupt(void)
{
	const struct branch expected[] = {
		{ sti_jmp, sti_to, KERNEL | JMP_REL, 0 },
		{ sti_to, on_interrupt, KERNEL | FAR, 0 },
		{ on_interrupt, sti_to, KERNEL | FAR, 0 },
	};

	clear(0);
	interrupt_self();
	asm volatile(ON "sti; sti_jmp: jmp sti_to; nop; sti_to: cli;" OFF : : : CLOBBERS);
	expect(expected, 3, 0, "an interrupt comes between a branch and its target");
	apic_write(APIC_EOI, 0);
}

#define NOWHERE		0x100000000000

extern char fault_call[], fault_call_to[];

/* Break: drop_branch_at() does nothing. */
static void branch_that_faults(void)
{
	const struct branch expected[] = {
		{ fault_call, on_page_fault, KERNEL | FAR, 0 },
		{ on_page_fault_iret, fault_call_to, KERNEL | FAR, 0 },
	};

	set_handler(14, on_page_fault);
	clear(0);
	asm volatile("mov %0, %%r8; lea fault_call_to(%%rip), %%r9;"
		     ON "fault_call: call *(%%r8); nop; fault_call_to:" OFF
		     : : "r"(NOWHERE) : CLOBBERS);
	expect(expected, 2, 0, "a call that faults is none, but the exception is");
}

extern char fault_jmp[], fault_jmp_to[];

/* Break: drop_branch_at() drops any. */
static __attribute__((noinline)) void target_that_faults(void)
{
	const struct branch expected[] = {
		{ fault_jmp, (const char *)NOWHERE, KERNEL | JMP_IND, MISPREDICTED },
		{ (const char *)NOWHERE, on_page_fault, KERNEL | FAR, 0 },
		{ on_page_fault_iret, fault_jmp_to, KERNEL | FAR, 0 },
	};

	clear(0);
	asm volatile("mov %0, %%r8; lea fault_jmp_to(%%rip), %%r9;"
		     ON "fault_jmp: jmp *%%r8; nop; fault_jmp_to:" OFF
		     : : "r"(NOWHERE) : CLOBBERS);
	expect(expected, 3, 0, "a jump to where nothing is, is one");
}

extern char debug_jmp[], debug_jmp_to[], int1_from[], int1_to[];

/* Break: event_taken() does not look for #DB, or takes INT 1 for it. */
static void debug_exception(void)
{
	const struct branch before[] = {
		{ debug_jmp, debug_jmp_to, KERNEL | JMP_REL, 0 },
	};
	const struct branch int1[] = {
		{ int1_from, on_debug, KERNEL | FAR, 0 },
		{ on_debug_iret, int1_to, KERNEL | FAR, 0 },
	};
	register uint32_t still_on asm("r9");

	set_handler(1, on_debug);
	clear(0);
	asm volatile(ON "debug_jmp: jmp debug_jmp_to; nop; debug_jmp_to:"
		     "pushf; orl $0x100, (%%rsp); popf; nop; jmp 1f; nop; 1:"
		     : : : CLOBBERS);
	report(rdmsr(DEBUG_EXTN_CTL), 0, "a debug exception disables it");
	expect(before, 1, 0, "before anything of it is recorded");
	clear(0);
	asm volatile(ON "int1_from: int $1; int1_to: rdmsr; mov %%eax, %%r8d;" OFF "mov %%r8d, %%r9d"
		     : "=r"(still_on) : : "rax", "rcx", "rdx", "r8", "cc", "memory");
	report(still_on, LBRSE, "INT 1 does not");
	expect(int1, 2, 0, "and is recorded");
}

extern char user_iret[];

static void to_user(void)
{
	asm volatile("pushq %0; push %1; pushq $0x202; pushq %2; push %3; user_iret: iretq"
		     : : "i"(USER_DATA), "r"(user_stack), "i"(USER_CODE), "r"(user_code));
}

/* Runs `nop; int $0x43` in user mode, with what is left by a filter. */
static void run_user(uint64_t select)
{
	clear(select);
	wrmsr(DEBUG_EXTN_CTL, LBRSE);
	user_run(to_user);
	wrmsr(DEBUG_EXTN_CTL, 0);
}

/* Break: Lbr::record() goes by the CPL of the source, or interrupted_user() looks at nothing. */
static void user_mode(void)
{
	const struct branch to[] = {
		{ user_iret, user_code, USER | FAR, 0 },
	};
	const struct branch back[] = {
		{ user_code + 1, user_back, KERNEL | FAR, 0 },
	};
	const struct branch interrupted[] = {
		{ user_iret, user_code, USER | FAR, 0 },
		{ on_interrupt, user_code, USER | FAR, 0 },
	};

	run_user(KERNEL);
	expect(to, 1, 0, "IRET to user mode ends there");
	run_user(USER | JCC | CALL_REL | RET | JMP_REL | JMP_IND);
	expect(back, 1, 0, "INT of user mode ends in the kernel");
	interrupt_self();
	run_user(KERNEL);
	apic_write(APIC_EOI, 0);
	expect(interrupted, 2, 0, "so it is known where IRET ends when an interrupt comes then");
}

int main(void)
{
	interrupts_init();
	registers();
	each_kind();
	wrap();
	loops();
	software_interrupt();
	interrupt();
	branch_that_faults();
	target_that_faults();
	/* The machine believes CR2 once only that the fault was of a fetch. */
	target_that_faults();
	debug_exception();
	user_mode();
	outl(0xf4, report_done() != 0);
	return 0;
}
