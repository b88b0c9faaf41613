/* SPDX-License-Identifier: GPL-2.0 */
/* From the PVH entry to main() in 64-bit mode, and what assembler alone can do. */

#define MSR_EFER	0xc0000080
#define EFER_LME	(1 << 8)
#define CR0_PE		(1 << 0)
#define CR0_PG		(1 << 31)
#define CR4_PAE		(1 << 5)
#define PAGE_1G		0x87		/* present, writable, for user mode, large */
#define PAGE_TABLE	0x07

	.section .note.PVH, "a", @note
	.long	4, 4, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.long	start

	.code32
	.text
	.globl	start
start:
	mov	$stack_end, %esp
	/* The first 4 GiB, one to one. */
	movl	$pdpt + PAGE_TABLE, pml4
	movl	$0x00000000 + PAGE_1G, pdpt
	movl	$0x40000000 + PAGE_1G, pdpt + 8
	movl	$0x80000000 + PAGE_1G, pdpt + 16
	movl	$0xc0000000 + PAGE_1G, pdpt + 24
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
start64:
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$stack_end, %rsp
	mov	$tss, %rax
	mov	%ax, gdt + 0x32
	shr	$16, %rax
	mov	%al, gdt + 0x34
	mov	%ah, gdt + 0x37
	mov	$0x30, %eax
	ltr	%ax
	call	main
1:	hlt
	jmp	1b

/*
 * vmrun(vmcb): runs a guest until it exits. It has registers of its own only in RAX, RSP and RIP,
 * so the others are its to use.
 */
	.globl	vmrun
vmrun:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rdi, %rax
	vmrun
	stgi			/* an exit leaves it clear */
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

/*
 * user_run(function): calls a function, which is to go to user mode, to user_code and with
 * user_stack; returns when that comes back by an interrupt.
 */
	.globl	user_run, user_code, user_back
user_run:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, kernel_stack
	jmp	*%rdi
user_code:
	nop
	int	$0x43
user_back:
	mov	kernel_stack, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

/* What the test of the oracle has in place of KVM. */
	.globl	kvm_code, kvm_rdmsr_code, kvm_code_end
kvm_code:
	mov	%edi, %ecx
	mov	%esi, %eax
	mov	%rsi, %rdx
	shr	$32, %rdx
	wrmsr
	ret
kvm_rdmsr_code:
	mov	%edi, %ecx
	rdmsr
	shl	$32, %rdx
	or	%rdx, %rax
	ret
kvm_code_end:

/*
 * What the other CPU does after its start-up IPI, in real mode at AP_BASE: PMU registers in pairs
 * (MSR, value) are written, then some are read back. The mailbox is at 0x7000, see bare.c.
 */
	.globl	ap_start, ap_end
	.code16
ap_start:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %ss
	mov	$0x6ff0, %sp
	mov	0x7000, %si		/* list of writes: count, then (MSR, low, high) */
	mov	(%si), %bx
	add	$4, %si
1:	test	%bx, %bx
	jz	2f
	mov	(%si), %ecx
	mov	4(%si), %eax
	mov	8(%si), %edx
	wrmsr
	add	$12, %si
	dec	%bx
	jmp	1b
2:	sti
	mov	$1000, %cx
3:	loop	3b
	cli
	mov	0x7002, %si		/* list of reads: count, then (MSR, low, high) */
	mov	(%si), %bx
	add	$4, %si
4:	test	%bx, %bx
	jz	5f
	mov	(%si), %ecx
	rdmsr
	mov	%eax, 4(%si)
	mov	%edx, 8(%si)
	add	$12, %si
	dec	%bx
	jmp	4b
5:	lock incl 0x7004		/* done */
6:	hlt
	jmp	6b

/* Its interrupt: counts, and ends it (EOI in x2APIC mode). */
	.globl	ap_interrupt
ap_interrupt:
	push	%eax
	push	%ecx
	push	%edx
	incl	0x7008
	mov	$0x80b, %ecx
	xor	%eax, %eax
	xor	%edx, %edx
	wrmsr
	pop	%edx
	pop	%ecx
	pop	%eax
	iret
ap_end:

/* What it does at AP_BASE for quirks.c: loads the state of the FPU, for ever. */
	.globl	ap_fpu_start, ap_fpu_end
ap_fpu_start:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	fninit
	fxsave	0x7000
	incl	0x7200			/* begun */
1:	fxrstor	0x7000
	jmp	1b
ap_fpu_end:

	.data
	.balign	8
gdt:	.quad	0
	.quad	0x00af9b000000ffff	/* 64-bit code */
	.quad	0x00cf93000000ffff	/* data */
	.quad	0x00cffb000000ffff	/* 32-bit code for user mode */
	.quad	0x00cff3000000ffff	/* data for user mode */
	.quad	0x00affb000000ffff	/* 64-bit code for user mode */
	.quad	0x0000890000000067, 0	/* the TSS, below 4 GiB */
gdtr:	.word	. - gdt - 1
	.long	gdt

	.balign	16
tss:	.long	0
	.quad	interrupt_stack_end	/* RSP0 */
	.skip	104 - 12

	.bss
	.balign	4096
	.skip	4096
interrupt_stack_end:
	.globl	user_stack
	.skip	4096
user_stack:
kernel_stack:
	.skip	8
	.balign	4096
pml4:	.skip	4096
pdpt:	.skip	4096
	.skip	16384
stack_end:
	.section .note.GNU-stack, "", @progbits
