// SPDX-License-Identifier: GPL-2.0
/* Interrupt handlers that count. */
#include "cpu.h"

struct gate {
	uint16_t offset_low, selector, flags, offset_middle;
	uint32_t offset_high, reserved;
};

struct frame {
	uint64_t rip, cs, rflags, rsp, ss;
};

static struct gate idt[256];
volatile int interrupts[256];
volatile uint64_t last_fault, last_nmi;

__attribute__((interrupt)) static void on_nmi(struct frame *frame)
{
	interrupts[2]++;
	last_nmi = frame->rip;
}

__attribute__((interrupt)) static void on_gp(volatile struct frame *frame, uint64_t error_code)
{
	(void)error_code;
	interrupts[13]++;
	last_fault = frame->rip;
	frame->rip += 2;
}

static void end_of_interrupt(void)
{
	if (rdmsr(MSR_APIC_BASE) & APIC_EXTD)
		wrmsr(MSR_X2APIC + (APIC_EOI >> 4), 0);
	else
		apic_write(APIC_EOI, 0);
}

__attribute__((interrupt)) static void on_40(struct frame *frame)
{
	(void)frame;
	interrupts[0x40]++;
	end_of_interrupt();
}

__attribute__((interrupt)) static void on_41(struct frame *frame)
{
	(void)frame;
	interrupts[0x41]++;
	end_of_interrupt();
}

/* For VMRUN to inject: no local APIC has to know of its end. */
__attribute__((interrupt)) static void on_42(struct frame *frame)
{
	(void)frame;
	interrupts[0x42]++;
}

static void set_gate(int vector, void *handler)
{
	uint64_t address = (uint64_t)handler;

	idt[vector] = (struct gate){
		.offset_low = address,
		.selector = 0x08,
		.flags = 0x8e00,
		.offset_middle = address >> 16,
		.offset_high = address >> 32,
	};
}

void interrupts_init(void)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) idtr = { sizeof(idt) - 1, (uint64_t)idt };

	set_gate(2, on_nmi);
	set_gate(13, on_gp);
	set_gate(0x40, on_40);
	set_gate(0x41, on_41);
	set_gate(0x42, on_42);
	set_gate(0x43, user_back);
	idt[0x43].flags |= 3 << 13;
	asm volatile("lidt %0" : : "m"(idtr));
	/* The interrupt controllers of the PC are not used. */
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	apic_write(APIC_SVR, 0x1ff);
}

bool faults(void (*function)(void))
{
	int before = interrupts[13];

	function();
	return interrupts[13] != before;
}
