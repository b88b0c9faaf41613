/* SPDX-License-Identifier: GPL-2.0 */
/*
 * To run() in 64-bit mode: from the PVH entry, or, with memory mapped one to one already, from the
 * entry of the ELF file.
 */

#define MSR_EFER	0xc0000080
#define EFER_LME	(1 << 8)
#define CR0_PE		(1 << 0)
#define CR0_PG		(1 << 31)
#define CR4_PAE		(1 << 5)
#define PAGE_1G		0x83		/* present, writable, large */
#define VECTOR_GP	13

	.section .note.PVH, "a", @note
	.long	4, 4, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.long	start32

	.code32
	.text
start32:
	movl	$pdpt + 3, pml4
	movl	$PAGE_1G, pdpt
	mov	$pml4, %eax
	mov	%eax, %cr3
	mov	$CR4_PAE, %eax
	mov	%eax, %cr4
	mov	$MSR_EFER, %ecx
	rdmsr
	or	$EFER_LME, %eax
	wrmsr
	mov	%cr0, %eax
	or	$CR0_PE | CR0_PG, %eax
	mov	%eax, %cr0
	lgdt	gdtr
	ljmp	$0x08, $start64

	.code64
	.globl	start64
start64:
	lgdt	gdtr
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$stack_end, %rsp
	pushq	$0x08
	pushq	$1f
	lretq
1:	mov	$on_gp, %eax
	mov	%ax, idt + 16 * VECTOR_GP
	movl	$0x8e000008, idt + 16 * VECTOR_GP + 2
	shr	$16, %eax
	mov	%ax, idt + 16 * VECTOR_GP + 6
	lidt	idtr
	call	run
	xor	%eax, %eax
	out	%eax, $0xf4
2:	hlt
	jmp	2b

/* The instruction that faults, RDMSR, WRMSR or RDPMC, has two bytes. */
on_gp:
	incq	faults
	add	$8, %rsp
	addq	$2, (%rsp)
	iretq

	.data
	.balign	8
gdt:	.quad	0
	.quad	0x00af9b000000ffff	/* 64-bit code */
	.quad	0x00cf93000000ffff	/* data */
gdtr:	.word	. - gdt - 1
	.quad	gdt
idtr:	.word	16 * 32 - 1
	.quad	idt

	.bss
	.balign	4096
pml4:	.skip	4096
pdpt:	.skip	4096
idt:	.skip	4096
	.skip	16384
stack_end:
	.section .note.GNU-stack, "", @progbits
