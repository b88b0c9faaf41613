// SPDX-License-Identifier: GPL-2.0
/* Where a guest goes on: nRIP of the VMCB (APM volume 2, "State Saved on Exit", "Event Injection"). */
#include "cpu.h"

#define LEAF_SVM	0x8000000a
#define NRIPS		(1 << 3)

/* A vector without a gate, and one whose handler counts. */
#define NO_GATE		0x44
#define COUNTS		0x42

static uint32_t svm_features(void)
{
	uint32_t eax = LEAF_SVM, edx;

	asm volatile("cpuid" : "+a"(eax), "=d"(edx) : : "ebx", "ecx");
	return edx;
}

extern char software_interrupt[], behind[];
asm(".pushsection .text\n"
	"software_interrupt: int $0x42\n"
	"behind: vmmcall\n"
	"mov $0, %ecx\n"
	"rdpmc\n"
	".popsection");

static void run_software_interrupt(void)
{
	asm volatile("jmp software_interrupt");
}

/*
 * Break: len_of_intercepted() is the length of the block's first instruction, Injected::find() finds
 * nothing, or take_injection_back() does nothing.
 */
void next_rip(void)
{
	uint64_t at = (uint64_t)software_interrupt;
	int before;

	report(svm_features() & NRIPS, NRIPS, "CPUID announces nRIP");

	before = interrupts[COUNTS];
	report(guest_run(run_software_interrupt), EXIT_VMMCALL, "a guest executes INT");
	report(interrupts[COUNTS] - before, 1, "and handles it");
	report(guest_next_rip() - guest_rip(), 3, "nRIP is behind VMMCALL");
	guest_intercept_rdpmc(true);
	report(guest_resume(3), EXIT_RDPMC, "the next instruction exits, too");
	report(guest_next_rip() - guest_rip(), 2, "nRIP is behind RDPMC");
	guest_intercept_rdpmc(false);

	before = interrupts[COUNTS];
	guest_inject_software(COUNTS, at + 2);
	report(guest_run((void (*)(void))software_interrupt), EXIT_VMMCALL, "INT is injected");
	report(interrupts[COUNTS] - before, 1, "its handler returns behind it");
	report(guest_rip(), (uint64_t)behind, "where the guest goes on");

	guest_intercept_gp(true);
	guest_inject_software(NO_GATE, at + 2);
	report(guest_run((void (*)(void))software_interrupt), EXIT_GP, "INT without a gate is injected");
	report(guest_rip(), at, "RIP is that of INT still");
	report(guest_next_rip(), 0, "and nRIP is 0");
	guest_intercept_gp(false);
}
