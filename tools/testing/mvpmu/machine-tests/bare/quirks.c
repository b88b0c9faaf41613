// SPDX-License-Identifier: GPL-2.0
/*
 * What QEMU does wrong, or otherwise than one would think, and the plugin works round: a result for
 * each, named as in qemu-pmu/src/quirks.rs. It passes; with the plugin's without=NAME it fails, and
 * when it does not, QEMU has changed and the work-around can go.
 */
#include "cpu.h"

/* How far counter 0 moves while the instructions run, and those that read it. */
#define moved(instructions) ({						\
	uint32_t from_, to_;						\
									\
	asm volatile("xor %%ecx, %%ecx; rdpmc; mov %%eax, %%r8d;"	\
		     instructions ";"					\
		     "xor %%ecx, %%ecx; rdpmc; mov %%r8d, %%ecx"	\
		     : "=a"(to_), "=c"(from_)				\
		     : : "rdx", "rdi", "r8", "r9", "cc", "memory");	\
	to_ - from_;							\
})

static void set_pc_flags(void)
{
	uint32_t carry = 0;

	asm volatile("test %%ecx, %%ecx; jmp 1f;"
		     "1: mov $-1, %%r8d; add $1, %%r8d; rdpmc; adc $0, %[carry]"
		     : [carry] "+r"(carry) : "c"(0) : "eax", "edx", "r8", "cc");
	report(carry, 1, "set-pc: RDPMC leaves the flags alone");
}

static void guest_reads(void)
{
	asm volatile("rdpmc; vmmcall" : : "c"(0) : "eax", "edx");
}

/*
 * A hundred of them: when something from outside the CPU (a timer of the board) has QEMU leave its
 * loop between VMRUN and RDPMC, QEMU forgets the number in time. CI saw that happen once.
 */
static void set_pc_exception(void)
{
	int before = interrupts[0x42];

	for (int i = 0; i < 100; i++) {
		guest_inject(0x42);
		guest_run(guest_reads);
	}
	guest_inject(0);
	report(interrupts[0x42] - before, 100, "set-pc: an event is injected once");
}

uint8_t buffer[0x30000];

static void rep_portions(void)
{
	report(moved("lea buffer(%%rip), %%rdi; mov $0x30000, %%ecx; rep stosb") - moved("nop"), 2,
	       "rep-portions: a long string instruction is one");
}

/* A load from a non-canonical address, 2 bytes long, which the handler of #GP skips. */
#define FAULT	"mov %%r9, %%rax; movb (%%rax), %%al"
#define NOWHERE	"mov $1, %%r9d; shl $63, %%r9"

static void exception_address(void)
{
	uint32_t few = moved(NOWHERE "; .rept 10; nop; .endr;" FAULT);
	uint32_t more = moved(NOWHERE "; .rept 30; nop; .endr;" FAULT);

	report(more - few, 20, "exception-address: what comes before an exception counts");
}

/* movb $0x90, 2(%rip): the second nop; 4 nops; ret */
uint8_t code[] = { 0xc6, 0x05, 1, 0, 0, 0, 0x90, 0x90, 0x90, 0x90, 0x90, 0xc3 };

static void self_modifying_code(void)
{
	report(moved("lea code(%%rip), %%r9; call *%%r9") - moved("nop"), 7,
	       "self-modifying-code: a store into its own block");
}

/* The other CPU: see start.S. */
extern char memory[];
extern char ap_fpu_start[], ap_fpu_end[];
#define AP_BASE		0x8000
static volatile uint32_t *const begun = (void *)(memory + 0x7200);

static void to_other_cpu(uint32_t icr)
{
	apic_write(APIC_ICR_HIGH, 1 << 24);
	apic_write(APIC_ICR, icr);
}

/*
 * An IRET that is not seen to unblock NMIs makes the next one wait, here for the IRET of another
 * interrupt. Without the work-around that happens once in some ten thousand times.
 */
#define NMIS	2000000
static void fpu_status(void)
{
	uint32_t waited = 0;

	for (int i = 0; i < ap_fpu_end - ap_fpu_start; i++)
		((volatile char *)memory)[AP_BASE + i] = ap_fpu_start[i];
	to_other_cpu(0xc500);			/* INIT */
	to_other_cpu(0x4600 | AP_BASE >> 12);	/* start-up */
	while (!*begun)
		asm volatile("pause");
	apic_write(APIC_ICR_HIGH, 0);
	for (int i = 0; i < NMIS && !waited; i++) {
		int before = interrupts[2];

		apic_write(APIC_ICR, 0x4400);	/* NMI, to this CPU */
		for (int n = 0; n < 100 && interrupts[2] == before; n++)
			asm volatile("");
		if (interrupts[2] == before) {
			asm volatile("int $0x42");
			waited++;
		}
	}
	to_other_cpu(0xc500);
	report(waited, 0, "fpu-status: NMIs come at once while another CPU loads its FPU");
}

int main(void)
{
	interrupts_init();
	svm_init();
	wrmsr(PERF_CTL(0), INSTRUCTIONS);
	wrmsr(GLOBAL_CTL, 1);
	set_pc_flags();
	set_pc_exception();
	rep_portions();
	exception_address();
	self_modifying_code();
	fpu_status();
	outl(0xf4, report_done() != 0);
	return 0;
}
