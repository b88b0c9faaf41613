// SPDX-License-Identifier: GPL-2.0
/* What the tests of the last branch record stack have in common. */
#include "lbr.h"

void clear(uint64_t select)
{
	wrmsr(DEBUG_EXTN_CTL, 0);
	for (int n = 0; n < ENTRIES; n++) {
		wrmsr(LBR_FROM(n), 0);
		wrmsr(LBR_TO(n), 0);
	}
	wrmsr(LBR_SELECT, select);
}

uint64_t from(int n)
{
	return rdmsr(LBR_FROM(n));
}

uint64_t to(int n)
{
	return rdmsr(LBR_TO(n));
}

bool is(int n, uint64_t source, uint64_t target)
{
	return from(n) == source && to(n) == (target | VALID);
}

uint64_t entries(void)
{
	int n = 0;

	while (n < ENTRIES && to(n) & VALID)
		n++;
	return n;
}

void expect(const struct branch *branches, int n, uint64_t suppressed, const char *name)
{
	uint64_t wrong = 0;
	int entry = 0;

	while (n-- && entry < ENTRIES) {
		const struct branch *branch = &branches[n];

		if (branch->kind & suppressed)
			continue;
		if (from(entry) != ((uint64_t)branch->from | branch->mispredicted) ||
		    to(entry) != ((uint64_t)branch->to | VALID))
			wrong |= 1 << entry;
		entry++;
	}
	report(wrong, 0, name);
	report(entries(), entry, "and no others");
}

/* Of the gates that interrupts.c has set, and others. */
struct gate {
	uint16_t offset_low, selector, flags, offset_middle;
	uint32_t offset_high, reserved;
};

static volatile struct gate *gate(int vector)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) idtr;

	asm volatile("sidt %0" : "=m"(idtr));
	return (struct gate *)idtr.base + vector;
}

void set_handler(int vector, const char *address)
{
	uint64_t at = (uint64_t)address;

	*gate(vector) = (struct gate){
		.offset_low = at,
		.selector = 0x08,
		.flags = 0x8e00,
		.offset_middle = at >> 16,
		.offset_high = at >> 32,
	};
}

asm(".pushsection .text\n"
    ".globl on_interrupt; on_interrupt: iretq\n"
    ".popsection");

#define VECTOR		0x46
void interrupt_self(void)
{
	set_handler(VECTOR, on_interrupt);
	apic_write(APIC_ICR, 0x44000 | VECTOR);
}
