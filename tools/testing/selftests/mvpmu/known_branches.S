/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guest code whose branches are known, with tables of them; guest_branches.h says
 * what is in which order.
 */
#include "guest_branches.h"

/* Of the registers, A, C and D change. */
.macro write_msr msr, value
	mov	$\msr, %ecx
	mov	$\value, %eax
	xor	%edx, %edx
	wrmsr
.endm

.macro recording_on
	write_msr MSR_AMD_DBG_EXTN_CFG, 0x40
.endm

.macro recording_off
	write_msr MSR_AMD_DBG_EXTN_CFG, 0
.endm

.macro exit_cpuid
	xor	%eax, %eax
	xor	%ecx, %ecx
	cpuid
.endm

/* Branches retired in the kernel, enabled. */
.macro exit_selector
	write_msr MSR_F15H_PERF_CTL, 0x4200c2
.endm

.macro exit_pio
	movzwl	test_port(%rip), %edx
	out	%al, %dx
.endm

.macro exit_mmio
	mov	test_mmio(%rip), %rcx
	mov	%eax, (%rcx)
.endm

.macro counters_on
	write_msr MSR_AMD64_PERF_CNTR_GLOBAL_CTL, 3
.endm

.macro counters_off
	write_msr MSR_AMD64_PERF_CNTR_GLOBAL_CTL, 0
.endm

.macro nothing
.endm

/* struct branch */
.macro branch from, to, kind
	.quad	\from, \to, \kind
.endm

/* struct branch[]: what is taken of a sequence in one pass. */
.macro taken_once name
	branch	\name\()_jmp, \name\()_1, JMP_REL
	branch	\name\()_jcc, \name\()_2, JCC
	branch	\name\()_call, \name\()_called, CALL_REL
	branch	\name\()_ret, \name\()_3, RET
	branch	\name\()_jmp_ind, \name\()_4, JMP_IND
	branch	\name\()_call_ind, \name\()_called, CALL_IND
	branch	\name\()_ret, \name\()_5, RET
	branch	\name\()_far, \name\()_6, FAR
.endm

/*
 * The code in .text, and its struct sequence in the table.  In edi DebugExtnCtl; in r10
 * the passes that are left, in r8 where indirect branches lead.
 */
.macro sequence name, middle, begin=nothing, finish=nothing
	.text
\name\()_run:
	push	%rbx
	mov	$2, %r10d
	mov	%edi, %eax
	xor	%edx, %edx
	mov	$MSR_AMD_DBG_EXTN_CFG, %ecx
	wrmsr
	\begin
\name\()_again:
	\middle
\name\()_jmp:
	jmp	\name\()_1
	nop
\name\()_1:
	\middle
	test	%esp, %esp
	jz	\name\()_2
\name\()_jcc:
	jnz	\name\()_2
	nop
\name\()_2:
	\middle
\name\()_call:
	call	\name\()_called
\name\()_3:
	\middle
	lea	\name\()_4(%rip), %r8
\name\()_jmp_ind:
	jmp	*%r8
	nop
\name\()_4:
	\middle
	lea	\name\()_called(%rip), %r8
\name\()_call_ind:
	call	*%r8
\name\()_5:
	\middle
	mov	%cs, %eax
	push	%rax
	lea	\name\()_6(%rip), %r8
	push	%r8
\name\()_far:
	lretq
\name\()_called:
	\middle
\name\()_ret:
	ret
\name\()_6:
	dec	%r10d
\name\()_loop:
	jnz	\name\()_again
	\finish
	recording_off
	pop	%rbx
	ret
\name\()_end:

	.section .rodata
	.quad	\name\()_run, \name\()_end
	taken_once \name
	branch	\name\()_loop, \name\()_again, JCC
	taken_once \name
.endm

.section .rodata
.balign 8
.globl sequences
sequences:
sequence plain, nothing
sequence cpuid, exit_cpuid
sequence selector, exit_selector
sequence pio, exit_pio
sequence pio_too, exit_pio
sequence mmio, exit_mmio
sequence counted, nothing, counters_on, counters_off

.text
.globl wait_for_pmi
wait_for_pmi:
	mov	%rdx, %r8
	mov	%edi, %eax
	xor	%edx, %edx
	mov	$MSR_AMD_DBG_EXTN_CFG, %ecx
	wrmsr
	counters_on
pmi_loop:
	dec	%esi
	jz	1f
	cmpl	$0, (%r8)
pmi_again:
	je	pmi_loop
1:	jmp	2f
	nop
2:	counters_off
	recording_off
	ret

.section .rodata
.globl until_pmi
until_pmi:
	branch	pmi_again, pmi_loop, JCC

/* A single step over an instruction that the CPU executes, or that KVM does. */
.macro single_step name, instruction
	.text
\name\()_step:
	push	%rbx
	recording_on
\name\()_before:
	jmp	\name\()_to
	nop
\name\()_to:
	xor	%eax, %eax
	pushf
	orl	$0x100, (%rsp)
	popf
	\instruction
	jmp	1f
	nop
1:	pop	%rbx
	ret

	.section .rodata
	.quad	\name\()_step
	branch	\name\()_before, \name\()_to, JMP_REL
.endm

.section .rodata
.globl single_steps
single_steps:
single_step nop, nop
single_step emulated, cpuid

.text
.globl user_out, user_jmp
user_out:
	out	%al, %dx
user_jmp:
	jmp	user_out

.globl record_calls, recorded_call, recorded_target
record_calls:
	push	%rbx
	lea	recorded_target(%rip), %r9
	recording_on
1:	mov	%esi, %r8d
recorded_call:
	call	*%r9
	dec	%r8d
	jnz	recorded_call
	dec	%edi
	test	$1, %edi
	jz	2f
	exit_cpuid
	jmp	1b
2:	exit_pio
	test	%edi, %edi
	jnz	1b
	recording_off
	pop	%rbx
	ret
recorded_target:
	ret

.globl record_around_l2, l1_first, l1_first_to, l1_last, l1_last_to
record_around_l2:
	push	%rbx
	mov	%rdx, %r10
	mov	%edi, %eax
	xor	%edx, %edx
	mov	$MSR_AMD_DBG_EXTN_CFG, %ecx
	wrmsr
l1_first:
	jmp	l1_first_to
	nop
l1_first_to:
	mov	%rsi, %rax
	vmrun	%rax
l1_last:
	jmp	l1_last_to
	nop
l1_last_to:
	recording_off
	mov	%r8d, (%r10)
	mov	%r9d, 4(%r10)
	pop	%rbx
	ret

.globl l2_start, l2_first, l2_first_to, l2_last, l2_last_to
l2_start:
	mov	$MSR_AMD64_LBR_SELECT, %ecx
	rdmsr
	mov	%eax, %r8d
	mov	$LBR_TO(NR_ENTRIES - 1), %ecx
	rdmsr
	mov	%eax, %r9d
l2_first:
	jmp	l2_first_to
	nop
l2_first_to:
	exit_cpuid
	exit_pio
l2_last:
	jmp	l2_last_to
	nop
l2_last_to:
	vmmcall

.section .note.GNU-stack, "", %progbits
