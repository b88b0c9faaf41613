/* SPDX-License-Identifier: GPL-2.0 */
/* The CPU without an operating system. */
#ifndef CPU_H
#define CPU_H

#include <stdbool.h>
#include <stdint.h>

#define MSR_APIC_BASE	0x1b
#define APIC_EXTD	(1 << 10)
#define MSR_X2APIC	0x800		/* MMIO offset >> 4 is added */
#define MSR_DEBUGCTL	0x1d9
#define MSR_EFER	0xc0000080
#define EFER_SVME	(1 << 12)
#define EFER_SCE	(1 << 0)
#define MSR_STAR	0xc0000081
#define MSR_VM_HSAVE_PA	0xc0010117

#define MACHINE_LEAF	0x4d767075

#define PERF_CTL(n)	(0xc0010200 + 2 * (n))
#define PERF_CTR(n)	(0xc0010201 + 2 * (n))
#define PERF_LEGACY_CTR(n)	(0xc0010004 + (n))
#define DF_CTL(n)	(0xc0010240 + 2 * (n))
#define DF_CTR(n)	(0xc0010241 + 2 * (n))
#define L3_CTL(n)	(0xc0010230 + 2 * (n))
#define L3_CTR(n)	(0xc0010231 + 2 * (n))
#define GLOBAL_STATUS	0xc0000300
#define GLOBAL_CTL	0xc0000301
#define STATUS_CLR	0xc0000302
#define STATUS_SET	0xc0000303

#define USR		(1ULL << 16)
#define OS		(1ULL << 17)
#define EDGE		(1ULL << 18)
#define INT		(1ULL << 20)
#define EN		(1ULL << 22)
#define INV		(1ULL << 23)
#define GUEST_ONLY	(1ULL << 40)
#define HOST_ONLY	(1ULL << 41)
#define INSTRUCTIONS	(0xc0 | OS | EN)

#define APIC		0xfee00000UL
#define APIC_ID		0x20
#define APIC_EOI	0xb0
#define APIC_SVR	0xf0
#define APIC_ICR	0x300
#define APIC_ICR_HIGH	0x310
#define APIC_LVTPC	0x340
#define LVT_NMI		0x400
#define LVT_MASKED	0x10000

static inline void outb(uint16_t port, uint8_t value)
{
	asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t value)
{
	asm volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
	return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"(value >> 32) : "memory");
}

static inline uint64_t rdpmc(uint32_t counter)
{
	uint32_t low, high;

	asm volatile("rdpmc" : "=a"(low), "=d"(high) : "c"(counter) : "memory");
	return (uint64_t)high << 32 | low;
}

static inline uint32_t apic_read(uint32_t reg)
{
	return *(volatile uint32_t *)(APIC + reg);
}

static inline void apic_write(uint32_t reg, uint32_t value)
{
	*(volatile uint32_t *)(APIC + reg) = value;
}

/* What the machine itself has counted, see pmu-model/src/stats.rs. */
static inline uint64_t machine_count(uint32_t what)
{
	uint32_t low = MACHINE_LEAF, high;

	asm volatile("cpuid" : "+a"(low), "+c"(what), "=d"(high) : : "ebx");
	return (uint64_t)high << 32 | low;
}

/* The sweep, see pmu-model/src/sweep.rs. The result is true when the leaf has a value. */
#define SWEEP_BEGIN	0x100
#define SWEEP_END	0x101
#define SWEEP_PLACE	0x103
#define SWEEP_NMI	0
static inline bool sweep(uint32_t what, uint64_t rbx, uint64_t rdx, uint64_t *value)
{
	uint32_t low = MACHINE_LEAF, has = what;

	asm volatile("cpuid" : "+a"(low), "+b"(rbx), "+c"(has), "+d"(rdx) : : "memory");
	*value = rdx << 32 | low;
	return has == 1;
}

/* Runs instructions, at CPL 0. */
#define run(instructions) asm volatile(instructions : : : "rcx", "cc", "memory")
/* 2 * n + 1 instructions. */
#define run_loop(n) run("mov $" #n ", %%ecx; 1: dec %%ecx; jnz 1b")

/* interrupts.c */
void interrupts_init(void);
extern volatile int interrupts[256];	/* how many came */
extern volatile uint64_t last_fault;	/* address of the last instruction with #GP */
extern volatile uint64_t last_nmi;	/* where the last NMI came */
/* The instruction, of two bytes, is skipped. */
bool faults(void (*function)(void));

/* start.S */
#define USER_CODE32	0x1b
#define USER_DATA	0x23
#define USER_CODE	0x2b
/* function is to go to user_code in user mode, with user_stack. */
void user_run(void (*function)(void));
/* wrmsr(msr, value) and, from kvm_rdmsr_code on, rdmsr(msr), to be copied. */
extern char kvm_code[], kvm_rdmsr_code[], kvm_code_end[];
extern char user_code[], user_stack[], user_back[];

/* svm.c */
struct vmcb;
void svm_init(void);
/* Runs function in a guest until it exits; returns the exit code. Intercepts VMMCALL and INTR. */
uint64_t guest_run(void (*function)(void));
/* The guest goes on behind the instruction it exited at. */
uint64_t guest_resume(int bytes);
void guest_intercept_rdpmc(bool on);
void guest_intercept_gp(bool on);
/* The next entry injects an interrupt; 0: none. */
void guest_inject(int vector);
/* The same with a software interrupt, whose handler is to return to next_rip. */
void guest_inject_software(int vector, uint64_t next_rip);
/* What the last exit has saved there. */
uint64_t guest_next_rip(void);
void guest_intercept_msr(uint32_t msr, bool on);
uint64_t guest_rip(void);
/* Any field of the VMCB. */
uint64_t *guest_vmcb(int offset);
#define EXIT_INTR	0x60
#define EXIT_RDPMC	0x6f
#define EXIT_GP		0x4d
#define EXIT_MSR	0x7c
#define EXIT_VMMCALL	0x81

/* nrip.c */
void next_rip(void);

/* report.c */
void report(uint64_t value, uint64_t expected, const char *name);
int report_done(void);

#endif
