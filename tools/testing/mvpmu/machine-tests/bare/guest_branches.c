// SPDX-License-Identifier: GPL-2.0
/*
 * The last branch record stack, when it is frozen, and in guests.
 *
 * The comment above a test names a change to the machine that makes it fail.
 */
#include "lbr.h"

static void sample(uint64_t debugctl)
{
	clear(JCC);
	wrmsr(MSR_DEBUGCTL, debugctl);
	wrmsr(PERF_CTR(0), -2000ULL);
	wrmsr(PERF_CTL(0), INSTRUCTIONS | INT);
	wrmsr(DEBUG_EXTN_CTL, LBRSE);
	asm volatile("sti");
	wrmsr(GLOBAL_CTL, 1);
	run_loop(5000);
	wrmsr(GLOBAL_CTL, 0);
	asm volatile("cli");
}

extern char thawed[], thawed_to[];

/* Break: Amd::pmi() freezes nothing, or records_branches() does not look. */
static void freeze(void)
{
	const struct branch expected[] = {
		{ thawed, thawed_to, KERNEL | JMP_REL, 0 },
	};
	int before = interrupts[0x40];

	apic_write(APIC_LVTPC, 0x40);
	sample(0);
	report(entries() >= 4, 1, "a PMI and its handler are recorded");
	sample(FLBRI);
	report(interrupts[0x40] - before, 2, "PMIs");
	report(rdmsr(GLOBAL_STATUS), LBRSF | 1, "it is frozen then");
	report(entries(), 0, "and has nothing of the handler");
	asm volatile("jmp 1f; nop; 1:");
	report(entries(), 0, "nor of what comes behind");
	wrmsr(STATUS_CLR, LBRSF | 1);
	asm volatile("thawed: jmp thawed_to; nop; thawed_to:" OFF : : : CLOBBERS);
	expect(expected, 1, 0, "until that is cleared");
	wrmsr(MSR_DEBUGCTL, 0);
}

extern char guest_jmp[], guest_jmp_to[], guest_last[], guest_last_to[];

static void guest(void)
{
	asm volatile("guest_jmp: jmp guest_jmp_to; nop; guest_jmp_to: sti;"
		     "guest_last: jmp guest_last_to; nop; guest_last_to: vmmcall");
}

/* The only jumps of a guest and its host. */
static uint64_t run_guest(void)
{
	uint64_t code;

	clear(JCC | CALL_REL | CALL_IND | RET | JMP_IND);
	wrmsr(DEBUG_EXTN_CTL, LBRSE);
	code = guest_run(guest);
	wrmsr(DEBUG_EXTN_CTL, 0);
	return code;
}

/* Break: vmexit() does not call guest_left(), or VMRUN is a branch. */
static void guest_mode(void)
{
	const struct branch expected[] = {
		{ guest_jmp, guest_jmp_to, KERNEL | JMP_REL, 0 },
		{ guest_last, guest_last_to, KERNEL | JMP_REL, 0 },
	};

	svm_init();
	report(run_guest(), EXIT_VMMCALL, "a guest runs");
	expect(expected, 2, 0, "its branches are recorded, but not its entry and exit");
	interrupt_self();
	report(run_guest(), EXIT_INTR, "one is interrupted");
	report(guest_rip(), (uint64_t)guest_last_to, "behind its last branch");
	expect(expected, 2, 0, "which is recorded");
	asm volatile("sti; nop; cli");
	apic_write(APIC_EOI, 0);
}

extern char own_jmp[], own_jmp_to[];
static uint64_t guest_has[4];

/* Reads what it has, then jumps once. */
static void guest_with_own(void)
{
	guest_has[0] = rdmsr(MSR_DEBUGCTL);
	guest_has[1] = rdmsr(DEBUG_EXTN_CTL);
	guest_has[2] = rdmsr(LBR_SELECT);
	guest_has[3] = rdmsr(LBR_TO(15));
	asm volatile("own_jmp: jmp own_jmp_to; nop; own_jmp_to: vmmcall");
}

static void run_with_own(uint64_t debugctl, uint64_t control)
{
	*guest_vmcb(VMCB_MISC) = VMCB_LBR;
	*guest_vmcb(VMCB_DBGCTL) = debugctl;
	*guest_vmcb(VMCB_DBGEXTNCTL) = control;
	*guest_vmcb(VMCB_SELECT) = JCC;
	for (int n = 0; n < 2 * ENTRIES; n++)
		*guest_vmcb(VMCB_STACK + 8 * n) = VALID | (0x100 + n);
	report(guest_run(guest_with_own), EXIT_VMMCALL, "a guest with registers of its own runs");
	report(guest_has[0], debugctl, "it has its DebugCtl");
	report(guest_has[1], control, "its DebugExtnCtl");
	report(guest_has[2], JCC, "its filter");
	report(guest_has[3], VALID | (0x100 + 31), "and its entries");
	report(*guest_vmcb(VMCB_SELECT), JCC, "they are saved: the filter");
	report(*guest_vmcb(VMCB_DBGCTL), debugctl, "DebugCtl");
	report(*guest_vmcb(VMCB_DBGEXTNCTL), control, "DebugExtnCtl");
	*guest_vmcb(VMCB_MISC) = 0;
}

/* How many halves of entries from there on are those that the guest was given, from number `first` on. */
static uint64_t given(int from, int first)
{
	int n = 0;

	while (from + n < 2 * ENTRIES && *guest_vmcb(VMCB_STACK + 8 * (from + n)) == (VALID | (0x100 + first + n)))
		n++;
	return n;
}

/* Break: vmrun() does not call enter_lbr(), or after_vmrun() not leave_lbr(). */
static void guest_switched(void)
{
	clear(0);
	wrmsr(MSR_DEBUGCTL, 1 << 12);
	run_with_own(FLBRI, LBRSE);
	report(*guest_vmcb(VMCB_STACK), (uint64_t)own_jmp, "the jump of the guest is its newest branch");
	report(*guest_vmcb(VMCB_STACK + 8), VALID | (uint64_t)own_jmp_to, "with its target");
	report(given(2, 0), 30, "behind it are those it came with");
	report(rdmsr(MSR_DEBUGCTL), 1 << 12, "the host has its DebugCtl again");
	report(rdmsr(DEBUG_EXTN_CTL), 0, "and its DebugExtnCtl");
	report(is(0, (uint64_t)own_jmp, (uint64_t)own_jmp_to), 1, "but the entries of the guest");
	report(rdmsr(LBR_SELECT), JCC, "and its filter");

	clear(0);
	wrmsr(MSR_DEBUGCTL, 0);
	wrmsr(DEBUG_EXTN_CTL, LBRSE);
	run_with_own(0, 0);
	report(rdmsr(DEBUG_EXTN_CTL), LBRSE, "a host that records goes on when the guest has not");
	wrmsr(DEBUG_EXTN_CTL, 0);
	report(given(0, 0), 32, "of which nothing was recorded");
	report(is(0, (uint64_t)own_jmp, (uint64_t)own_jmp_to), 0, "nor of the guest");
}

int main(void)
{
	interrupts_init();
	freeze();
	guest_mode();
	guest_switched();
	outl(0xf4, report_done() != 0);
	return 0;
}
