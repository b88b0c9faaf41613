/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a test machine has counted on the calling CPU since it was switched on, by
 * itself and beside its PMU: a CPUID leaf of its own, for the host only.
 */
#ifndef SELFTEST_MVPMU_MACHINE_H
#define SELFTEST_MVPMU_MACHINE_H

#include "processor.h"

#define MACHINE_LEAF		0x4d767075
#define MACHINE_SIGNATURE	0x746e756f

enum machine_count {
	/* Operations on PMU registers by the host, and writes of its LVTPC. */
	MACHINE_RDMSR = 0,
	MACHINE_WRMSR = 1,
	MACHINE_RDPMC = 2,
	MACHINE_LVTPC = 3,
	MACHINE_EXITS = 4,
	/* By host and guest; those of the host in CPL 0, and in CPL 3. */
	MACHINE_INSTRUCTIONS = 5,
	MACHINE_KERNEL_INSTRUCTIONS = 7,
	MACHINE_USER_INSTRUCTIONS = 8,
};

/* False where it does not count that. */
static inline bool machine_read(enum machine_count what, u64 *count)
{
	u32 eax, ebx, ecx, edx;

	__cpuid(MACHINE_LEAF, what, &eax, &ebx, &ecx, &edx);
	*count = eax | (u64)edx << 32;
	return ebx == MACHINE_SIGNATURE && ecx;
}

static __always_inline u64 machine_count(enum machine_count what)
{
	u32 eax, ebx, ecx, edx;

	__cpuid(MACHINE_LEAF, what, &eax, &ebx, &ecx, &edx);
	return eax | (u64)edx << 32;
}

/*
 * For a listing of instructions, which the machines make if they are asked
 * to: what follows is to be added or taken away, or neither.
 */
enum machine_mark {
	MACHINE_ADD = 0x110,
	MACHINE_SUBTRACT = 0x111,
	MACHINE_END = 0x112,
};

static __always_inline void machine_mark(enum machine_mark mark)
{
	u32 eax, ebx, ecx, edx;

	__cpuid(MACHINE_LEAF, mark, &eax, &ebx, &ecx, &edx);
}

#endif /* SELFTEST_MVPMU_MACHINE_H */
