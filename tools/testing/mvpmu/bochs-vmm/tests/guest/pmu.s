# SPDX-License-Identifier: GPL-2.0
#
# The PMU, seen from ring 0.

# Counter 0: instructions, counter 1: branches, fixed counter 0; none of them runs.
.macro program_counters extra=0
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 0
	wrmsr_imm IA32_PERFEVTSEL0, EVENT_INSTRUCTIONS | SEL_OS | SEL_EN | \extra
	wrmsr_imm IA32_PERFEVTSEL0 + 1, EVENT_BRANCHES | SEL_OS | SEL_EN
	wrmsr_imm IA32_FIXED_CTR_CTRL, 1
.endm

.macro start
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 1 << 32 | 3
.endm

# Four instructions, all counted: the WRMSR is the last that is.
.macro stop
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 0
.endm

.macro report_counters
	report_msr IA32_PMC0
	report_msr IA32_PMC0 + 1
	report_msr IA32_FIXED_CTR0
.endm

# One instruction, then 1000 times two, then those of `stop`.
.macro count_a_loop
	start
	mov $1000, %esi
1:	dec %esi
	jnz 1b
	stop
.endm

guest_loop:
	call setup
	program_counters
	count_a_loop
	report_counters
	jmp finish

# MOV, and a branch to itself that is taken 99 times of 100.
guest_self_branch:
	call setup
	program_counters
	start
	mov $100, %ecx
1:	loop 1b
	stop
	report_counters
	jmp finish

# A function changes after it was called, by a write that misses the TLB.
guest_own_code:
	call answer
	call send
	mov %cr3, %rax
	mov %rax, %cr3
	movb $2, answer+1(%rip)
	call answer
	call send
	jmp finish
answer:
	mov $1, %eax
	ret

guest_nothing:
	call setup
	program_counters
	start
	stop
	report_counters
	jmp finish

# Counter 0 in ring 3: MOV, a loop of 200, SYSCALL. Counter 1 in ring 0: LEA, MOV, SYSRET, and
# those of `stop`.
guest_rings:
	call setup
	orq $4, PML4
	orq $4, PDPT
	orq $4, PAGE_DIRECTORY
	mov %cr3, %rax
	mov %rax, %cr3
	wrmsr_imm IA32_EFER, 0x501
	wrmsr_imm IA32_STAR, 0x30 << 48 | 0x10 << 32
	wrmsr_imm IA32_FMASK, 0
	lea 2f(%rip), %rax
	xor %edx, %edx
	mov $IA32_LSTAR, %ecx
	wrmsr
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 0
	wrmsr_imm IA32_PERFEVTSEL0, EVENT_INSTRUCTIONS | SEL_USR | SEL_EN
	wrmsr_imm IA32_PERFEVTSEL0 + 1, EVENT_INSTRUCTIONS | SEL_OS | SEL_EN
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 3
	lea 1f(%rip), %rcx
	mov $2, %r11d
	sysretq
1:	mov $100, %esi
3:	dec %esi
	jnz 3b
	syscall
2:	stop
	report_msr IA32_PMC0
	report_msr IA32_PMC0 + 1
	jmp finish

# Loads, stores, either, flushes, mispredicted branches, slots.
guest_events:
	call setup
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 0
	wrmsr_imm IA32_PERFEVTSEL0, 0x81d0 | SEL_OS | SEL_EN
	wrmsr_imm IA32_PERFEVTSEL0 + 1, 0x82d0 | SEL_OS | SEL_EN
	wrmsr_imm IA32_PERFEVTSEL0 + 2, 0x83d0 | SEL_OS | SEL_EN
	wrmsr_imm IA32_PERFEVTSEL0 + 3, 0x4f2e | SEL_OS | SEL_EN
	wrmsr_imm IA32_PERFEVTSEL0 + 4, 0x00c5 | SEL_OS | SEL_EN
	wrmsr_imm IA32_FIXED_CTR_CTRL, 1 << 12
	mov $0x400000, %esi
	mov $0x500000, %edi
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 1 << 35 | 0x1f
	mov (%rsi), %rax
	mov 8(%rsi), %rax
	cmp %rax, (%rsi)
	mov %rax, (%rdi)
	push %rax
	incq (%rdi)
	xchg %rax, (%rdi)
	lock addq $1, (%rdi)
	movsb
	clflush (%rdi)
	clflush 64(%rdi)
	mov $32, %ecx
1:	loop 1b
	stop
	report_msr IA32_PMC0
	report_msr IA32_PMC0 + 1
	report_msr IA32_PMC0 + 2
	report_msr IA32_PMC0 + 3
	report_msr IA32_PMC0 + 4
	report_msr IA32_FIXED_CTR0 + 3
	jmp finish

# Between the two RDPMC: the first itself and a MOV.
guest_rdpmc:
	call setup
	program_counters
	start
	xor %ecx, %ecx
	rdpmc
	mov %eax, %esi
	rdpmc
	mov %eax, %edi
	stop
	report %rsi
	report %rdi
	jmp finish

# Three instructions, one that faults, the handler's four, and those of `stop`.
guest_fault:
	call setup
	catch_gp 1f
	program_counters
	start
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 1 << 63
1:	stop
	report %r14
	report_counters
	jmp finish

# Four instructions and those of `stop`, and for each interrupt 16: see on_irq.
guest_rep:
	call setup
	wrmsr_imm X2APIC_TIMER_DIVIDE, 0xb
	wrmsr_imm X2APIC_LVTT, 0x20000 | VECTOR_IRQ
	program_counters
	wrmsr_imm X2APIC_TIMER_INITIAL, 20000
	sti
	start
	mov $0x400000, %esi
	mov $0x600000, %edi
	mov $0x100000, %ecx
	rep movsb
	stop
	cli
	report_counters
	report %r12
	jmp finish

# Counter 0 overflows after 100 instructions, as an NMI.
guest_pmi:
	call setup
	wrmsr_imm X2APIC_LVTPC, 0x400
	program_counters SEL_INT
	wrmsr_imm IA32_A_PMC0, (1 << 48) - 100
	count_a_loop
	report %r13
	report_msr IA32_PERF_GLOBAL_STATUS
	report_msr X2APIC_LVTPC
	report_msr IA32_PMC0
	jmp finish

# Counter 0 overflows after 1 to 16 instructions: how far the NMI comes after the first of them.
guest_skid:
	call setup
	gate VECTOR_NMI, on_nmi_keep_rip
	program_counters SEL_INT
	mov $1, %r12d
1:	wrmsr_imm X2APIC_LVTPC, 0x400
	mov $IA32_A_PMC0, %ecx
	mov $0xffffffff, %eax
	mov $0xffff, %edx
	sub %r12d, %eax
	inc %eax
	wrmsr
	start
2:	.rept 20
	nop
	.endr
	stop
	lea 2b(%rip), %rax
	sub %rax, %r13
	report %r13
	inc %r12d
	cmp $17, %r12d
	jb 1b
	jmp finish
on_nmi_keep_rip:
	mov (%rsp), %r13
	iretq

# As guest_pmi, with FREEZE_PERFMON_ON_PMI.
guest_freeze:
	call setup
	wrmsr_imm X2APIC_LVTPC, 0x400
	wrmsr_imm IA32_DEBUGCTL, 1 << 12
	program_counters SEL_INT
	wrmsr_imm IA32_A_PMC0, (1 << 48) - 100
	count_a_loop
	report %r13
	report_msr IA32_PERF_GLOBAL_STATUS
	report_msr IA32_PMC0
	report_msr IA32_FIXED_CTR0
	jmp finish

# As guest_pmi, with LVTPC masked.
guest_masked:
	call setup
	wrmsr_imm X2APIC_LVTPC, 0x10400
	program_counters SEL_INT
	wrmsr_imm IA32_A_PMC0, (1 << 48) - 100
	count_a_loop
	report %r13
	report_msr IA32_PERF_GLOBAL_STATUS
	jmp finish

# RDPMC of a counter that does not exist, then of one that does.
guest_rdpmc_gp:
	call setup
	catch_gp 1f
	mov $8, %ecx
	rdpmc
1:	report %r14
	catch_gp 2f
	mov $(1 << 30 | 3), %ecx
	rdpmc
2:	report %r14
	jmp finish

# RDMSR of a register that a CPU without PMU does not have; CPUID leaf 0xa.
guest_absent:
	call setup
	catch_gp 1f
	mov $IA32_PERF_GLOBAL_CTRL, %ecx
	rdmsr
1:	report %r14
	mov $0xa, %eax
	xor %ecx, %ecx
	cpuid
	mov %eax, %eax
	call send
	jmp finish

# An exception, and no IDT.
guest_triple_fault:
	lidt 1f(%rip)
	ud2
	.balign 8
1:	.word 0
	.quad 0

guest_halt:
	cli
	hlt
	jmp guest_halt

# TPAUSE with interrupts off ends at the TSC in EDX:EAX.
guest_tpause:
	call setup
	cli
	rdtsc
	add $1000, %eax
	adc $0, %edx
	xor %ecx, %ecx
	tpause %ecx
	mov $1, %ecx
	report %rcx
	jmp finish

guest_spin:
	jmp guest_spin

# Counter 0 overflows in the loop; LVTPC is an interrupt by the end of it.
guest_late:
	call setup
	wrmsr_imm X2APIC_LVTPC, 0x400
	program_counters SEL_INT
	wrmsr_imm IA32_A_PMC0, (1 << 48) - 100
	start
	mov $60, %esi
1:	dec %esi
	jnz 1b
	stop
	wrmsr_imm X2APIC_LVTPC, VECTOR_IRQ
	sti
	mov $200, %esi
1:	dec %esi
	jnz 1b
	cli
	report %r13
	report %r12
	report_msr IA32_PERF_GLOBAL_STATUS
	jmp finish

# An NMI, an interrupt, and one by instruction.
guest_interrupts:
	call setup
	wrmsr_imm X2APIC_LVTPC, 0x400
	program_counters SEL_INT
	wrmsr_imm IA32_PERFEVTSEL0 + 1, 0x01cb | SEL_OS | SEL_EN
	wrmsr_imm IA32_A_PMC0, (1 << 48) - 100
	count_a_loop
	wrmsr_imm X2APIC_LVTPC, VECTOR_IRQ
	wrmsr_imm IA32_A_PMC0, (1 << 48) - 100
	sti
	count_a_loop
	cli
	start
	int $VECTOR_IRQ
	stop
	report %r13
	report %r12
	report_msr IA32_PMC0 + 1
	jmp finish

# A trace of branches: a loop of which nine are taken, interrupted by the PMI behind the fourth.
.set IA32_DS_AREA, 0x600
.set DS_AREA, 0x600000
.set BTS_BUFFER, 0x601000
guest_trace:
	call setup
	wrmsr_imm X2APIC_LVTPC, 0x400
	mov $DS_AREA, %edi
	movq $BTS_BUFFER, (%rdi)
	movq $BTS_BUFFER, 8(%rdi)
	movq $(BTS_BUFFER + 24 * 100), 16(%rdi)
	movq $(BTS_BUFFER + 24 * 4), 24(%rdi)
	wrmsr_imm IA32_DS_AREA, DS_AREA
	wrmsr_imm IA32_DEBUGCTL, 1 << 8 | 1 << 7 | 1 << 6
	mov $10, %esi
1:	dec %esi
	jnz 1b
	wrmsr_imm IA32_DEBUGCTL, 0
	report %r13
	mov 8(%rdi), %rax
	sub $BTS_BUFFER, %rax
	call send
	lea 1b(%rip), %r12
	mov BTS_BUFFER, %rax
	sub %r12, %rax
	call send
	mov BTS_BUFFER + 8, %rax
	sub %r12, %rax
	call send
	report_msr IA32_PERF_GLOBAL_STATUS
	jmp finish

# IA32_DS_AREA and the bits of IA32_DEBUGCTL, where there are none.
guest_no_trace:
	call setup
	catch_gp 1f
	wrmsr_imm IA32_DEBUGCTL, 1 << 7
1:	mov %r14, %r12
	catch_gp 1f
	wrmsr_imm IA32_DS_AREA, 0
1:	report %r12
	report %r14
	jmp finish

# Cycles, reference cycles; instructions, cycles, reference cycles, slots.
guest_cycles:
	call setup
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 0
	wrmsr_imm IA32_PERFEVTSEL0, 0x003c | SEL_OS | SEL_EN
	wrmsr_imm IA32_PERFEVTSEL0 + 1, 0x013c | SEL_OS | SEL_EN
	wrmsr_imm IA32_FIXED_CTR_CTRL, 0x1111
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 0xf << 32 | 3
	stop
	report_msr IA32_PMC0
	report_msr IA32_PMC0 + 1
	report_msr IA32_FIXED_CTR0
	report_msr IA32_FIXED_CTR0 + 1
	report_msr IA32_FIXED_CTR0 + 2
	report_msr IA32_FIXED_CTR0 + 3
	jmp finish

# What there is before anybody has written it.
guest_power_on:
	call setup
	report_msr IA32_PERFEVTSEL0
	report_msr IA32_FIXED_CTR_CTRL
	report_msr IA32_PERF_GLOBAL_CTRL
	report_msr IA32_PERF_GLOBAL_STATUS
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 0
	report_msr IA32_PMC0
	report_msr IA32_FIXED_CTR0
	jmp finish

# Three conditional branches, one of them taken; two jumps, one of them indirect; three calls, one of
# them indirect, with three returns; one far return.
guest_branches:
	call setup
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 0
	wrmsr_imm IA32_PERFEVTSEL0, 0x01c4 | SEL_OS | SEL_EN
	wrmsr_imm IA32_PERFEVTSEL0 + 1, 0x10c4 | SEL_OS | SEL_EN
	wrmsr_imm IA32_PERFEVTSEL0 + 2, 0x11c4 | SEL_OS | SEL_EN
	wrmsr_imm IA32_PERFEVTSEL0 + 3, 0x02c4 | SEL_OS | SEL_EN
	wrmsr_imm IA32_PERFEVTSEL0 + 4, 0x08c4 | SEL_OS | SEL_EN
	wrmsr_imm IA32_PERFEVTSEL0 + 5, 0x20c4 | SEL_OS | SEL_EN
	wrmsr_imm IA32_PERFEVTSEL0 + 6, 0x40c4 | SEL_OS | SEL_EN
	wrmsr_imm IA32_PERFEVTSEL0 + 7, 0x80c4 | SEL_OS | SEL_EN
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 0xff
	xor %eax, %eax
	jnz 1f
	jz 1f
1:	jc 1f
1:	jmp 1f
1:	lea 1f(%rip), %rax
	jmp *%rax
1:	lea on_call(%rip), %rax
	call on_call
	call on_call
	call *%rax
	push $0x10
	lea 1f(%rip), %rax
	push %rax
	lretq
1:	stop
	mov $8, %r8d
	mov $IA32_PMC0, %r9d
1:	mov %r9d, %ecx
	rdmsr
	shl $32, %rdx
	or %rdx, %rax
	call send
	inc %r9d
	dec %r8d
	jnz 1b
	jmp finish
on_call:
	ret
