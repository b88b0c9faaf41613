// SPDX-License-Identifier: GPL-2.0
/* A guest that shares everything with its host but the stack. */
#include "cpu.h"

struct segment {
	uint16_t selector, attributes;
	uint32_t limit;
	uint64_t base;
};

struct vmcb {
	uint32_t cr, dr, exceptions, intercepts3, intercepts4;
	uint8_t reserved1[0x40 - 0x14];
	uint64_t iopm, msrpm, tsc_offset;
	uint32_t asid, tlb_control;
	uint64_t v_intr, interrupt_shadow, exit_code, exit_info1, exit_info2, exit_int_info;
	uint8_t reserved2[0xa8 - 0x90];
	uint64_t event;
	uint8_t reserved7[0xc8 - 0xb0];
	uint64_t next_rip;
	uint8_t reserved9[0x400 - 0xd0];
	struct segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
	uint8_t reserved3[0x4cb - 0x4a0];
	uint8_t cpl;
	uint32_t reserved4;
	uint64_t efer;
	uint8_t reserved5[0x548 - 0x4d8];
	uint64_t cr4, cr3, cr0, dr7, dr6, rflags, rip;
	uint8_t reserved6[0x5d8 - 0x580];
	uint64_t rsp;
	uint8_t reserved8[0x5f8 - 0x5e0];
	uint64_t rax;
} __attribute__((packed));

_Static_assert(__builtin_offsetof(struct vmcb, exit_code) == 0x70, "exit code");
_Static_assert(__builtin_offsetof(struct vmcb, event) == 0xa8, "event");
_Static_assert(__builtin_offsetof(struct vmcb, next_rip) == 0xc8, "nRIP");
_Static_assert(__builtin_offsetof(struct vmcb, efer) == 0x4d0, "EFER");
_Static_assert(__builtin_offsetof(struct vmcb, rip) == 0x578, "RIP");
_Static_assert(__builtin_offsetof(struct vmcb, rsp) == 0x5d8, "RSP");
_Static_assert(__builtin_offsetof(struct vmcb, rax) == 0x5f8, "RAX");

#define INTERCEPT_INTR	(1 << 0)
#define INTERCEPT_RDPMC	(1 << 15)
#define INTERCEPT_MSR	(1 << 28)
#define INTERCEPT_VMRUN	(1 << 0)
#define INTERCEPT_VMMCALL (1 << 1)

static __attribute__((aligned(4096))) union {
	struct vmcb vmcb;
	uint8_t page[4096];
} guest;
static __attribute__((aligned(4096))) uint8_t host_save[4096], msrpm[8192], guest_stack[4096];

void vmrun(struct vmcb *vmcb);

void svm_init(void)
{
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
	wrmsr(MSR_VM_HSAVE_PA, (uint64_t)host_save);
}

static uint64_t read_cr(int n)
{
	uint64_t value = 0;

	switch (n) {
	case 0: asm("mov %%cr0, %0" : "=r"(value)); break;
	case 3: asm("mov %%cr3, %0" : "=r"(value)); break;
	case 4: asm("mov %%cr4, %0" : "=r"(value)); break;
	}
	return value;
}

static uint64_t resume(void)
{
	vmrun(&guest.vmcb);
	return guest.vmcb.exit_code;
}

uint64_t guest_run(void (*function)(void))
{
	struct vmcb *vmcb = &guest.vmcb;
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) idtr, gdtr;

	asm volatile("sidt %0" : "=m"(idtr));
	asm volatile("sgdt %0" : "=m"(gdtr));
	vmcb->intercepts3 |= INTERCEPT_INTR;
	vmcb->intercepts4 = INTERCEPT_VMRUN | INTERCEPT_VMMCALL;
	vmcb->msrpm = (uint64_t)msrpm;
	vmcb->asid = 1;
	vmcb->cs = (struct segment){ 0x08, 0xa9b, 0xffffffff, 0 };
	vmcb->ss = (struct segment){ 0x10, 0xc93, 0xffffffff, 0 };
	vmcb->ds = vmcb->ss;
	vmcb->es = vmcb->ss;
	vmcb->idtr = (struct segment){ 0, 0, idtr.limit, idtr.base };
	vmcb->gdtr = (struct segment){ 0, 0, gdtr.limit, gdtr.base };
	vmcb->efer = rdmsr(MSR_EFER);
	vmcb->cr0 = read_cr(0);
	vmcb->cr3 = read_cr(3);
	vmcb->cr4 = read_cr(4);
	vmcb->rflags = 2;
	vmcb->rip = (uint64_t)function;
	vmcb->rsp = (uint64_t)guest_stack + sizeof(guest_stack) - 8;
	return resume();
}

uint64_t guest_resume(int bytes)
{
	guest.vmcb.rip += bytes;
	return resume();
}

void guest_intercept_rdpmc(bool on)
{
	guest.vmcb.intercepts3 &= ~INTERCEPT_RDPMC;
	guest.vmcb.intercepts3 |= on ? INTERCEPT_RDPMC : 0;
}

void guest_inject(int vector)
{
	/* An external interrupt, valid. */
	guest.vmcb.event = vector ? 1ULL << 31 | vector : 0;
}

void guest_inject_software(int vector, uint64_t next_rip)
{
	guest.vmcb.event = 1ULL << 31 | 4 << 8 | vector;
	guest.vmcb.next_rip = next_rip;
}

uint64_t guest_next_rip(void)
{
	return guest.vmcb.next_rip;
}

void guest_intercept_gp(bool on)
{
	guest.vmcb.exceptions = on ? 1 << 13 : 0;
}

/* Of an MSR from C000_0000 or C001_0000 on: reads and writes. */
void guest_intercept_msr(uint32_t msr, bool on)
{
	int bit = 2 * ((msr >> 16 == 0xc001 ? 0x4000 : 0x2000) + (msr & 0x1fff));
	uint8_t both = 3 << bit % 8;

	guest.vmcb.intercepts3 |= INTERCEPT_MSR;
	msrpm[bit / 8] = on ? msrpm[bit / 8] | both : msrpm[bit / 8] & ~both;
}

uint64_t guest_rip(void)
{
	return guest.vmcb.rip;
}

uint64_t *guest_vmcb(int offset)
{
	return (uint64_t *)(guest.page + offset);
}
