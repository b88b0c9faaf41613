# SPDX-License-Identifier: GPL-2.0
#
# What the guest programs share. They run where Linux would: 64-bit mode, ring 0, memory mapped one
# to one. The image is copied to its load address, so all references are relative to RIP. Results
# go out as 64-bit values through the data port.

.set IA32_APIC_BASE, 0x1b
.set IA32_PMC0, 0xc1
.set IA32_PERFEVTSEL0, 0x186
.set IA32_DEBUGCTL, 0x1d9
.set IA32_FIXED_CTR0, 0x309
.set IA32_FIXED_CTR_CTRL, 0x38d
.set IA32_PERF_GLOBAL_STATUS, 0x38e
.set IA32_PERF_GLOBAL_CTRL, 0x38f
.set IA32_A_PMC0, 0x4c1
.set IA32_EFER, 0xc0000080
.set IA32_STAR, 0xc0000081
.set IA32_LSTAR, 0xc0000082
.set IA32_FMASK, 0xc0000084
.set X2APIC_EOI, 0x80b
.set X2APIC_SPURIOUS, 0x80f
.set X2APIC_LVTT, 0x832
.set X2APIC_LVTPC, 0x834
.set X2APIC_TIMER_INITIAL, 0x838
.set X2APIC_TIMER_DIVIDE, 0x83e

.set EVENT_INSTRUCTIONS, 0xc0
.set EVENT_BRANCHES, 0xc4
.set SEL_USR, 1 << 16
.set SEL_OS, 1 << 17
.set SEL_INT, 1 << 20
.set SEL_EN, 1 << 22

.set VECTOR_NMI, 2
.set VECTOR_GP, 13
.set VECTOR_IRQ, 0x40

.set DATA_PORT, 0xe9
.set EXIT_PORT, 0xf4

# The page tables that the machine sets up: first entries of the three levels.
.set PML4, 0x9000
.set PDPT, 0xa000
.set PAGE_DIRECTORY, 0xb000
# Memory above the image.
.set IDT, 0x200000

# Writes a 64-bit constant to an MSR: four instructions. Uses RAX, RCX, RDX.
.macro wrmsr_imm msr, value
	mov $(\msr), %ecx
	mov $((\value) & 0xffffffff), %eax
	mov $((\value) >> 32 & 0xffffffff), %edx
	wrmsr
.endm

# Sends what an MSR reads.
.macro report_msr msr
	mov $(\msr), %ecx
	rdmsr
	shl $32, %rdx
	or %rdx, %rax
	call send
.endm

.macro report register
	mov \register, %rax
	call send
.endm

# A #GP in what follows goes on at `to`, with R14 = 1.
.macro catch_gp to
	lea \to(%rip), %r15
	xor %r14d, %r14d
.endm

# Sets a gate of the IDT. Uses RAX, RBX.
.macro gate vector, handler
	lea \handler(%rip), %rax
	mov $(IDT + 16 * \vector), %ebx
	mov %ax, (%rbx)
	movw $0x10, 2(%rbx)
	movw $0x8e00, 4(%rbx)
	shr $16, %rax
	mov %ax, 6(%rbx)
	shr $16, %rax
	mov %eax, 8(%rbx)
	movl $0, 12(%rbx)
.endm

# RAX, low byte first. Uses RAX, RBX, RDX.
send:
	mov $8, %ebx
	mov $DATA_PORT, %edx
1:	out %al, %dx
	shr $8, %rax
	dec %ebx
	jnz 1b
	ret

finish:
	mov $EXIT_PORT, %edx
	xor %eax, %eax
	out %eax, %dx
	hlt

# Exceptions, interrupts, x2APIC. R12 counts interrupts, R13 NMIs.
setup:
	gate VECTOR_GP, on_gp
	gate VECTOR_NMI, on_nmi
	gate VECTOR_IRQ, on_irq
	lidt idtr(%rip)
	xor %r12d, %r12d
	xor %r13d, %r13d
	mov $IA32_APIC_BASE, %ecx
	rdmsr
	or $0xc00, %eax
	wrmsr
	wrmsr_imm X2APIC_SPURIOUS, 0x1ff
	ret
	.balign 8
idtr:
	.word 0xfff
	.quad IDT

on_gp:
	add $8, %rsp
	mov %r15, (%rsp)
	mov $1, %r14d
on_gp_end:
	iretq

on_nmi:
	inc %r13
	iretq

on_irq:
	inc %r12
	push %rax
	push %rcx
	push %rdx
	wrmsr_imm X2APIC_EOI, 0
	pop %rdx
	pop %rcx
	pop %rax
on_irq_end:
	iretq
