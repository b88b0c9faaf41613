// SPDX-License-Identifier: GPL-2.0
/*
 * What the oracle has to notice of a CPU, whatever instructions an operating system uses. To be run
 * with oracle=note.
 *
 * The comment above a test names a change to the machine that makes it fail.
 */
#include "cpu.h"

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

int main(void)
{
	interrupts_init();
	svm_init();
	/* What guests are given: counters, not selectors. Performance interrupts are the host's. */
	guest_intercept_msr(PERF_CTL(0), true);
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_EXTD);
	wrmsr(MSR_X2APIC + (APIC_LVTPC >> 4), LVT_NMI);
	user_mode();
	outl(0xf4, report_done() != 0);
	return 0;
}
