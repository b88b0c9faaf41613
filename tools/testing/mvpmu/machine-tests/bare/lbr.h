/* SPDX-License-Identifier: GPL-2.0 */
/* The last branch record stack. */
#ifndef LBR_H
#define LBR_H

#include "cpu.h"

#define LBR_SELECT	0xc000010e
#define DEBUG_EXTN_CTL	0xc000010f
#define LBRSE		(1 << 6)
#define LBR_FROM(n)	(0xc0010300 + 2 * (n))
#define LBR_TO(n)	(0xc0010301 + 2 * (n))
#define ENTRIES		16

#define VALID		(1ULL << 63)
#define MISPREDICTED	(1ULL << 63)
#define FLBRI		(1 << 11)
#define LBRSF		(1ULL << 58)

/* LBR_SELECT: what is suppressed. */
#define KERNEL		(1 << 0)
#define USER		(1 << 1)
#define JCC		(1 << 2)
#define CALL_REL	(1 << 3)
#define CALL_IND	(1 << 4)
#define RET		(1 << 5)
#define JMP_IND		(1 << 6)
#define JMP_REL		(1 << 7)
#define FAR		(1 << 8)

/* Branches between ON and OFF are recorded, in code that may use RAX, RCX and RDX only before and behind. */
#define ON	"mov $0xc000010f, %%ecx; mov $0x40, %%eax; xor %%edx, %%edx; wrmsr;"
#define OFF	"mov $0xc000010f, %%ecx; xor %%eax, %%eax; xor %%edx, %%edx; wrmsr;"
#define CLOBBERS "rax", "rcx", "rdx", "r8", "r9", "cc", "memory"

/* VMCB: LBR virtualization, and what it switches. */
#define VMCB_MISC	0xb8
#define VMCB_LBR	1
#define VMCB_DBGCTL	0x670
#define VMCB_DBGEXTNCTL	0x698
#define VMCB_STACK	0xa70
#define VMCB_SELECT	0xb70

struct branch {
	const char *from, *to;
	/* The bit that suppresses it; whether it is one of those that are mispredicted. */
	uint64_t kind, mispredicted;
};

/* No branch is recorded from now on, and there is no entry; with this filter. */
void clear(uint64_t select);
uint64_t from(int n);
uint64_t to(int n);
/* Entry n is that of a branch that was predicted. */
bool is(int n, uint64_t source, uint64_t target);
uint64_t entries(void);
/* The stack has these branches, of which the last one is the newest, but those of `suppressed` kinds. */
void expect(const struct branch *branches, int n, uint64_t suppressed, const char *name);

/* An interrupt goes to this address. */
void set_handler(int vector, const char *address);
/* IRET, and nothing else. */
extern char on_interrupt[];
/* An interrupt to this CPU itself, which comes to on_interrupt once it may, and has to be ended. */
void interrupt_self(void);

#endif
