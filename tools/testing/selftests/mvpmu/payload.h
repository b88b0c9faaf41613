/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guest code of known length.
 *
 * MEASURE() is one asm block, so that no instruction of the compiler's is in
 * it.  Its first instruction writes @enable to GLOBAL_CTRL, which starts the
 * counters, its last writes 0, which stops them.  The last is counted, the
 * first is not; it is the other way round when they exit, as the counters are
 * started or stopped already when KVM counts the WRMSR.
 */
#ifndef SELFTEST_MVPMU_PAYLOAD_H
#define SELFTEST_MVPMU_PAYLOAD_H

#include "guest_pmu.h"

/* mov, xor, xor, wrmsr at the end */
#define MEASURE_INSTRUCTIONS	4

#define MEASURE(enable, body, ...)						\
do {										\
	u64 __enable = (enable);						\
										\
	asm volatile("wrmsr\n\t"						\
		     body "\n\t"						\
		     "mov %[global_control], %%ecx\n\t"				\
		     "xor %%eax, %%eax\n\t"					\
		     "xor %%edx, %%edx\n\t"					\
		     "wrmsr"							\
		     : "+a"((u32){__enable}),					\
		       "+d"((u32){__enable >> 32}),				\
		       "+c"((u32){vendor->global_control})			\
		     : [global_control]"m"(vendor->global_control),		\
		       ##__VA_ARGS__						\
		     : "rbx", "r8", "r9", "cc", "memory");			\
} while (0)

struct payload {
	const char *name;
	/* Runs its loop @n times, with GLOBAL_CTRL = @enable. */
	void (*measure)(u64 enable, u64 n);
	u64 once[NR_PMU_EVENTS];	/* before the loop */
	u64 each[NR_PMU_EVENTS];	/* in each iteration */
};

static inline u64 payload_count(const struct payload *payload,
				enum pmu_event event, u64 n)
{
	return payload->once[event] + n * payload->each[event] +
	       (event == INSTRUCTIONS ? MEASURE_INSTRUCTIONS : 0);
}

/* No exit but for host interrupts. */
static inline void measure_loop(u64 enable, u64 n)
{
	MEASURE(enable,
		"mov %[n], %%r8\n"
		"1: dec %%r8\n\t"
		"jnz 1b", [n]"r"(n));
}

/* CPUID: an exit, the instruction is emulated in the kernel. */
static inline void measure_cpuid(u64 enable, u64 n)
{
	MEASURE(enable,
		"mov %[n], %%r8\n"
		"1: xor %%eax, %%eax\n\t"
		"cpuid\n\t"
		"dec %%r8\n\t"
		"jnz 1b", [n]"r"(n));
}

/* Port output and input: exits to userspace. */
static inline void measure_pio(u64 enable, u64 n)
{
	MEASURE(enable,
		"mov %[n], %%r8\n\t"
		"mov %[port], %%edx\n"
		"1: out %%al, %%dx\n\t"
		"in %%dx, %%al\n\t"
		"dec %%r8\n\t"
		"jnz 1b", [n]"r"(n), [port]"i"(TEST_PORT));
}

/* MMIO write and read: exits to userspace, through the emulator. */
static inline void measure_mmio(u64 enable, u64 n)
{
	MEASURE(enable,
		"mov %[n], %%r8\n"
		"1: mov %%eax, (%[mmio])\n\t"
		"mov (%[mmio]), %%eax\n\t"
		"dec %%r8\n\t"
		"jnz 1b", [n]"r"(n), [mmio]"r"(TEST_MMIO_GVA));
}

#define PAYLOAD_LOOP							\
	{ "loop", measure_loop,						\
	  .once = { [INSTRUCTIONS] = 1 },				\
	  .each = { [INSTRUCTIONS] = 2, [BRANCHES] = 1 } }
#define PAYLOAD_CPUID							\
	{ "CPUID exits", measure_cpuid,					\
	  .once = { [INSTRUCTIONS] = 1 },				\
	  .each = { [INSTRUCTIONS] = 4, [BRANCHES] = 1 } }
#define PAYLOAD_PIO							\
	{ "port I/O exits to userspace", measure_pio,			\
	  .once = { [INSTRUCTIONS] = 2 },				\
	  .each = { [INSTRUCTIONS] = 4, [BRANCHES] = 1 } }
#define PAYLOAD_MMIO							\
	{ "MMIO exits to userspace", measure_mmio,			\
	  .once = { [INSTRUCTIONS] = 1 },				\
	  .each = { [INSTRUCTIONS] = 4, [BRANCHES] = 1 } }

#endif /* SELFTEST_MVPMU_PAYLOAD_H */
