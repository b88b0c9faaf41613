# SPDX-License-Identifier: GPL-2.0
#
# Two CPUs. The other one goes to where `start_other` says; only the first one reports.

# A start-up IPI starts the CPU once; another one is nothing to it until there was INIT.
guest_start_up:
	call setup_two
	start_other other_is_alive
	await STARTS, 1
	ipi 1, ICR_START | TRAMPOLINE >> 12
	mov $200000, %ecx
1:	loop 1b
	report_memory STARTS
	ipi 1, ICR_INIT
	mov $200000, %ecx
1:	loop 1b
	mov ALIVE, %r8
	mov $200000, %ecx
1:	loop 1b
	sub ALIVE, %r8
	report %r8
	ipi 1, ICR_START | TRAMPOLINE >> 12
	await STARTS, 2
	report_memory STARTS
	jmp finish
other_is_alive:
	call setup_other
1:	incq ALIVE
	jmp 1b

# Where the other CPU is: its local APIC, IA32_APIC_BASE, and CPUID leaves 1 (twice), 0BH (both
# levels); then the first one's APIC and leaf 0BH.
guest_place:
	call setup_two
	start_other other_place
	await DONE, 1
	mov $PLACE, %esi
	mov $8, %r8d
1:	mov (%rsi), %rax
	call send
	add $8, %rsi
	dec %r8d
	jnz 1b
	report_msr X2APIC_ID
	mov $0xb, %eax
	xor %ecx, %ecx
	cpuid
	mov %edx, %eax
	call send
	jmp finish
other_place:
	call setup_other
	mov $PLACE, %esi
	mov $X2APIC_ID, %ecx
	rdmsr
	mov %rax, (%rsi)
	mov $IA32_APIC_BASE, %ecx
	rdmsr
	mov %rax, 8(%rsi)
	mov $1, %eax
	cpuid
	shr $16, %ebx
	mov %rbx, 16(%rsi)
	shr $28, %edx
	and $1, %edx
	mov %rdx, 24(%rsi)
	mov $0xb, %eax
	xor %ecx, %ecx
	cpuid
	mov %rbx, 32(%rsi)
	mov %rdx, 40(%rsi)
	mov $0xb, %eax
	mov $1, %ecx
	cpuid
	mov %rax, 48(%rsi)
	mov %rbx, 56(%rsi)
	movq $1, DONE
	cli
1:	hlt
	jmp 1b

# Interrupts to the other CPU, which is halted: by its number, by its logical number, to all, to all
# others, to the one with the lowest priority. Then how many each has taken, NMIs, and to nobody.
guest_ipi:
	call setup
	gate VECTOR_NMI, on_other_nmi
	gate VECTOR_OTHER, on_other_irq
	start_other other_sleeps
	await STARTS, 1
	sti
	ipi 1, ICR_FIXED | VECTOR_OTHER
	await IRQS, 1
	ipi 2, ICR_FIXED | ICR_LOGICAL | VECTOR_OTHER
	await IRQS, 2
	ipi 0, ICR_FIXED | ICR_OTHERS | VECTOR_OTHER
	await IRQS, 3
	ipi 2, ICR_LOWEST | ICR_LOGICAL | VECTOR_OTHER
	await IRQS, 4
	# Both, by handlers of the same vector.
	ipi 0, ICR_FIXED | ICR_ALL | VECTOR_OTHER
	await IRQS, 6
	ipi 3, ICR_FIXED | ICR_LOGICAL | VECTOR_OTHER
	await IRQS, 8
	ipi 0xffffffff, ICR_FIXED | VECTOR_OTHER
	await IRQS, 10
	ipi 1, ICR_NMI
	await NMIS, 1
	ipi 0, ICR_OTHERS | ICR_NMI
	await NMIS, 2
	# The first one's own.
	ipi 0, ICR_FIXED | VECTOR_IRQ
	report %r12
	ipi 7, ICR_FIXED | VECTOR_OTHER
	mov $200000, %ecx
1:	loop 1b
	report_memory IRQS
	report_memory NMIS
	jmp finish
other_sleeps:
	call setup_other
	sti
1:	hlt
	jmp 1b

# An interrupt of the serial port, which the IOAPIC sends to the other CPU: its pin 4, by number, then
# by logical number to both.
.set IOAPIC, 0xfec00000
.set UART_DATA, 0x3f8
.set UART_ENABLE, 0x3f9
.set UART_REASON, 0x3fa
.macro ioapic register, value
	movl $\register, (%rdi)
	movl $(\value), 16(%rdi)
.endm
guest_ioapic:
	call setup
	gate VECTOR_OTHER, on_other_irq
	start_other other_sleeps
	await STARTS, 1
	sti
	mov $IOAPIC, %edi
	ioapic 0x19, 1 << 24
	ioapic 0x18, VECTOR_OTHER
	call cause_interrupt
	await IRQS, 1
	ioapic 0x19, 3 << 24
	ioapic 0x18, ICR_LOGICAL | VECTOR_OTHER
	call cause_interrupt
	await IRQS, 3
	report_memory IRQS
	jmp finish
# The port has sent a byte, of which it tells; it is asked for the reason of the last time.
cause_interrupt:
	mov $UART_REASON, %edx
	in %dx, %al
	mov $UART_ENABLE, %edx
	mov $2, %eax
	out %al, %dx
	mov $UART_DATA, %edx
	out %al, %dx
	ret

# The other CPU calls a function that the first one changes: by a write that misses the TLB, and
# by one that does not.
guest_code_of_other:
	call setup_two
	start_other other_calls
	await ANSWER, 1
	mov %cr3, %rax
	mov %rax, %cr3
	movb $2, other_answer+1(%rip)
	await ANSWER, 2
	report_memory ANSWER
	movb $3, other_answer+1(%rip)
	await ANSWER, 3
	report_memory ANSWER
	jmp finish
other_calls:
	call setup_other
1:	call other_answer
	mov %rax, ANSWER
	jmp 1b
other_answer:
	mov $1, %eax
	ret

# Both look at the TSC under a lock: how often it was less than what either has seen last, and
# whether the lock has gone to the other one.
.set LOOKS, 30000
guest_tsc:
	call setup_two
	start_other other_looks
	call look_at_tsc
	await DONE, 2
	report_memory BACKWARDS
	mov CHANGES, %rax
	cmp $10, %rax
	seta %al
	movzx %al, %eax
	call send
	jmp finish
other_looks:
	call setup_other
	call look_at_tsc
	cli
1:	hlt
	jmp 1b
look_at_tsc:
	mov $X2APIC_ID, %ecx
	rdmsr
	mov %eax, %r8d
	mov $LOOKS, %r9d
1:	lock btsq $0, LOCK
	jc 1b
	rdtsc
	shl $32, %rdx
	or %rdx, %rax
	cmp LAST_TSC, %rax
	jae 2f
	incq BACKWARDS
2:	mov %rax, LAST_TSC
	cmp OWNER, %r8
	je 3f
	incq CHANGES
	mov %r8, OWNER
3:	movq $0, LOCK
	dec %r9d
	jnz 1b
	lock incq DONE
	ret

# Both count: the first one a loop of 100,000, and more, of many turns; the other one of 50,000.
guest_two_counters:
	call setup_two
	start_other other_counts
	await STARTS, 1
	program_counters
	start
	mov $100000, %esi
1:	dec %esi
	jnz 1b
	stop
	await DONE, 1
	report_counters
	report_memory PLACE
	report_memory PLACE + 8
	jmp finish
other_counts:
	call setup_other
	program_counters
	start
	mov $50000, %esi
1:	dec %esi
	jnz 1b
	stop
	mov $IA32_PMC0, %ecx
	rdmsr
	mov %rax, PLACE
	mov $IA32_PMC0 + 1, %ecx
	rdmsr
	mov %rax, PLACE + 8
	movq $1, DONE
	cli
1:	hlt
	jmp 1b

# An overflow on the other CPU while the first one counts, too: the NMI is the other's.
guest_pmi_of_other:
	call setup
	wrmsr_imm X2APIC_LVTPC, 0x400
	start_other other_overflows
	program_counters SEL_INT
	start
	await DONE, 1
	stop
	report %r13
	report_memory NMIS
	jmp finish
other_overflows:
	call setup_other
	lidt other_idtr(%rip)
	wrmsr_imm X2APIC_LVTPC, 0x400
	program_counters SEL_INT
	wrmsr_imm IA32_A_PMC0, (1 << 48) - 30000
	xor %r13d, %r13d
	start
	mov $40000, %esi
1:	dec %esi
	jnz 1b
	stop
	mov %r13, NMIS
	movq $1, DONE
	cli
1:	hlt
	jmp 1b
	.balign 8
other_idtr:
	.word 0xfff
	.quad IDT

# The other CPU stores its branches, 15,000 that are taken, while the first one, which branches, too,
# writes that it stores none: how many records there are, and IA32_DEBUGCTL of the first one.
guest_trace_of_other:
	call setup
	start_other other_traces
2:	wrmsr_imm IA32_DEBUGCTL, 0
	cmpq $1, DONE
	jne 2b
	mov DS_AREA + 8, %rax
	sub $BTS_BUFFER, %rax
	call send
	report_msr IA32_DEBUGCTL
	jmp finish
other_traces:
	call setup_other
	mov $DS_AREA, %edi
	movq $BTS_BUFFER, (%rdi)
	movq $BTS_BUFFER, 8(%rdi)
	movq $(BTS_BUFFER + 24 * 20000), 16(%rdi)
	movq $(BTS_BUFFER + 24 * 20000), 24(%rdi)
	wrmsr_imm IA32_DS_AREA, DS_AREA
	wrmsr_imm IA32_DEBUGCTL, 1 << 8 | 1 << 7 | 1 << 6
	mov $15001, %esi
1:	dec %esi
	jnz 1b
	wrmsr_imm IA32_DEBUGCTL, 0
	movq $1, DONE
	cli
1:	hlt
	jmp 1b

# IA32_DEBUGCTL of the first one, while the other has set it.
guest_debugctl_of_other:
	call setup
	start_other other_sets_debugctl
	await DONE, 1
	report_msr IA32_DEBUGCTL
	jmp finish
other_sets_debugctl:
	call setup_other
	wrmsr_imm IA32_DEBUGCTL, 1
	movq $1, DONE
	cli
1:	hlt
	jmp 1b

# The timers of both, while both are halted: that time went on, how many each has had, and how often
# the other one's had not just begun anew.
.set X2APIC_TIMER_CURRENT, 0x839
guest_two_timers:
	call setup
	gate VECTOR_OTHER, on_other_timer
	start_other other_has_timer
	await STARTS, 1
	wrmsr_imm X2APIC_TIMER_DIVIDE, 0xb
	wrmsr_imm X2APIC_LVTT, VECTOR_IRQ
	rdtsc
	shl $32, %rdx
	or %rdx, %rax
	mov %rax, %r15
	wrmsr_imm X2APIC_TIMER_INITIAL, 3000000
	sti
1:	hlt
	cmp $1, %r12
	jb 1b
	cli
	rdtsc
	shl $32, %rdx
	or %rdx, %rax
	sub %r15, %rax
	cmp $3000000, %rax
	setae %al
	movzx %al, %eax
	call send
	report %r12
	report_memory IRQS
	report_memory PLACE
	jmp finish
on_other_timer:
	push %rax
	push %rcx
	push %rdx
	mov $X2APIC_TIMER_CURRENT, %ecx
	rdmsr
	cmp $399000, %eax
	jae 1f
	incq PLACE
1:	wrmsr_imm X2APIC_EOI, 0
	incq IRQS
	pop %rdx
	pop %rcx
	pop %rax
	iretq
other_has_timer:
	call setup_other
	wrmsr_imm X2APIC_TIMER_DIVIDE, 0xb
	wrmsr_imm X2APIC_LVTT, 0x20000 | VECTOR_OTHER
	wrmsr_imm X2APIC_TIMER_INITIAL, 400000
	sti
1:	hlt
	jmp 1b

# Halted with interrupts off, but the other CPU has an NMI for it.
guest_halt_wakes:
	call setup
	start_other other_wakes
	cli
	hlt
	report %r13
	jmp finish
other_wakes:
	call setup_other
	mov $300000, %ecx
1:	loop 1b
	ipi 0, ICR_NMI
	cli
1:	hlt
	jmp 1b

# Both are, one after the other.
guest_both_halt:
	call setup
	start_other other_halts
	cli
1:	hlt
	jmp 1b
other_halts:
	call setup_other
	mov $300000, %ecx
1:	loop 1b
	cli
1:	hlt
	jmp 1b
