// SPDX-License-Identifier: GPL-2.0
/*
 * What the options of the machine make of its PMU. To be run with
 *	power-on=random:1,pmi-delay=200,weights=3:2
 *
 * The comment above a test names a change to the machine that makes it fail.
 */
#include "cpu.h"

#define CYCLES		(0x76 | OS | EN)
#define REFERENCE	(1ULL << 32 | 0x120 | OS | EN)

/* Break: Vcpu::new() does not call power_on(). */
static void power_on(void)
{
	uint64_t running = 0, values = 0;

	for (int n = 0; n < 6; n++) {
		running += (rdmsr(PERF_CTL(n)) & EN) != 0;
		values += rdmsr(PERF_CTR(n)) != 0;
	}
	report(values, 6, "firmware has left something in each counter");
	report(running, 4, "and some of them on");
	wrmsr(GLOBAL_CTL, 0);
	for (int n = 0; n < 6; n++) {
		wrmsr(PERF_CTL(n), 0);
		wrmsr(PERF_CTR(n), 0);
	}
	wrmsr(STATUS_CLR, 0x3f);
}

/* Break: Amd::event() takes no weights. */
static void weights(void)
{
	wrmsr(PERF_CTL(0), INSTRUCTIONS);
	wrmsr(PERF_CTL(1), CYCLES);
	wrmsr(PERF_CTL(2), REFERENCE);
	wrmsr(GLOBAL_CTL, 7);
	run_loop(500);
	wrmsr(GLOBAL_CTL, 0);
	report(rdpmc(1), 3 * rdpmc(0), "an instruction takes three cycles");
	report(rdpmc(2), 2 * rdpmc(0), "and two of the reference clock");
}

static void arm(uint64_t instructions, uint64_t bits)
{
	wrmsr(GLOBAL_CTL, 0);
	wrmsr(PERF_CTL(0), INSTRUCTIONS | INT | bits);
	wrmsr(PERF_CTR(0), -instructions);
	wrmsr(GLOBAL_CTL, 1);
}

/* Break: Vcpu::fold() sends what Pmu::fold() asks for, or PmiDelay keeps the LVTPC. */
static void delay(void)
{
	int before, early;
	uint64_t status;

	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_EXTD);
	wrmsr(MSR_X2APIC + (APIC_LVTPC >> 4), 0x40);
	arm(100, 0);
	asm volatile("sti");
	run_loop(100);
	early = interrupts[0x40];
	status = rdmsr(GLOBAL_STATUS);
	wrmsr(MSR_X2APIC + (APIC_LVTPC >> 4), 0x41);
	run_loop(100);
	asm volatile("cli");
	report(early, 0, "an interrupt takes time");
	report(status, 1, "when the status says already that it is due");
	report(interrupts[0x40], 0, "what the LVTPC said at the overflow does not matter");
	report(interrupts[0x41], 1, "but what it says when the interrupt comes");

	before = interrupts[0x41];
	wrmsr(STATUS_CLR, 1);
	arm(100, 0);
	asm volatile("sti");
	run_loop(60);
	arm(10, 0);
	run_loop(10);
	run_loop(200);
	asm volatile("cli");
	report(interrupts[0x41] - before, 1, "an overflow meanwhile brings no second interrupt");
}

static void guest_1000(void)
{
	asm volatile(".rept 1000; nop; .endr; vmmcall");
}

/* Break: a VM exit forgets the interrupt under way, or delivers it. */
static void late(void)
{
	int before = interrupts[0x41], early;
	uint64_t code;

	svm_init();
	wrmsr(STATUS_CLR, 1);
	arm(950, GUEST_ONLY);
	code = guest_run(guest_1000);
	asm volatile("sti");
	early = interrupts[0x41] - before;
	run_loop(200);
	asm volatile("cli");
	report(code, EXIT_VMMCALL, "a guest ends before the interrupt comes");
	report(early, 0, "no interrupt yet");
	report(rdmsr(GLOBAL_STATUS), 1, "but the overflow of the guest");
	report(interrupts[0x41] - before, 1, "the host gets it");
	wrmsr(GLOBAL_CTL, 0);
}

int main(void)
{
	interrupts_init();
	power_on();
	weights();
	delay();
	late();
	outl(0xf4, report_done() != 0);
	return 0;
}
