# SPDX-License-Identifier: GPL-2.0
#
# What the programs for two CPUs share: the first one starts the other, which goes to where
# OTHER_ENTRY says.

.set VECTOR_OTHER, VECTOR_IRQ + 1
.set X2APIC_ID, 0x802
.set X2APIC_ICR, 0x830
.set ICR_FIXED, 0x4000
.set ICR_LOWEST, 0x4100
.set ICR_NMI, 0x4400
.set ICR_INIT, 0x4500
.set ICR_START, 0x4600
.set ICR_LOGICAL, 1 << 11
.set ICR_ALL, 2 << 18
.set ICR_OTHERS, 3 << 18

.set GDT, 0x6000
# Where the other CPU starts, in real mode, and its stack.
.set TRAMPOLINE, 0x30000
.set OTHER_STACK, 0x4f0000
# What both know, each on a line of its own.
.set OTHER_ENTRY, 0x300000
.set STARTS, 0x300040
.set ALIVE, 0x300080
.set PLACE, 0x3000c0
.set IRQS, 0x300100
.set NMIS, 0x300140
.set ANSWER, 0x300180
.set LOCK, 0x3001c0
.set LAST_TSC, 0x300200
.set BACKWARDS, 0x300240
.set OWNER, 0x300280
.set CHANGES, 0x3002c0
.set DONE, 0x300300

# Sends an interrupt message. Uses RAX, RCX, RDX.
.macro ipi destination, what
	mov $X2APIC_ICR, %ecx
	mov $(\what), %eax
	mov $\destination, %edx
	wrmsr
.endm

# Waits until there is this in memory.
.macro await address, value
9:	pause
	cmpq $(\value), \address
	jne 9b
.endm

.macro report_memory address
	mov \address, %rax
	call send
.endm

.macro start_other entry
	lea \entry(%rip), %rax
	mov %rax, OTHER_ENTRY
	call start_cpu
.endm

start_cpu:
	lea trampoline(%rip), %rsi
	mov $TRAMPOLINE, %edi
	mov $(trampoline_end - trampoline), %ecx
	rep movsb
	ipi 1, ICR_INIT
	ipi 1, ICR_START | TRAMPOLINE >> 12
	ret

trampoline:
	.code16
	mov %cs, %ax
	mov %ax, %ds
	lgdtl trampoline_gdtr - trampoline
	mov $0x20, %eax
	mov %eax, %cr4
	mov $PML4, %eax
	mov %eax, %cr3
	mov $IA32_EFER, %ecx
	mov $0x100, %eax
	xor %edx, %edx
	wrmsr
	mov $0x80000011, %eax
	mov %eax, %cr0
	ljmpl $0x10, $(TRAMPOLINE + trampoline_64 - trampoline)
	.code64
trampoline_64:
	mov $0x18, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $OTHER_STACK, %esp
	mov OTHER_ENTRY, %rax
	jmp *%rax
trampoline_gdtr:
	.word 0x1f
	.long GDT
trampoline_end:

# The other CPU's interrupts: those of `setup`, with the handlers that count in memory.
setup_other:
	lidt idtr(%rip)
	mov $IA32_APIC_BASE, %ecx
	rdmsr
	or $0xc00, %eax
	wrmsr
	wrmsr_imm X2APIC_SPURIOUS, 0x1ff
	lock incq STARTS
	ret

on_other_nmi:
	lock incq NMIS
	iretq

on_other_irq:
	lock incq IRQS
	push %rax
	push %rcx
	push %rdx
	wrmsr_imm X2APIC_EOI, 0
	pop %rdx
	pop %rcx
	pop %rax
	iretq

setup_two:
	call setup
	gate VECTOR_NMI, on_other_nmi
	gate VECTOR_IRQ, on_other_irq
	ret
