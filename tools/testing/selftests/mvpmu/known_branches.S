/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guest code whose branches are known, with tables of them; guest_branches.h says
 * what is in which order.
 */
#include "guest_branches.h"

/* Of the registers, A, C and D change, here and in what follows. */
.macro write_msr msr, value
	mov	\msr, %ecx
	mov	\value, %eax
	xor	%edx, %edx
	wrmsr
.endm

/* The variables are those of guest_branches.c. */
.macro write_recording
	mov	recording_msr(%rip), %ecx
	xor	%edx, %edx
	wrmsr
.endm

.macro recording_on
	mov	recording(%rip), %eax
	write_recording
.endm

.macro recording_off
	xor	%eax, %eax
	write_recording
.endm

.macro exit_cpuid
	xor	%eax, %eax
	xor	%ecx, %ecx
	cpuid
.endm

/* Branches retired in the kernel, enabled. */
.macro exit_selector
	write_msr selector_msr_0(%rip), selector_value(%rip)
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
	write_msr global_control_msr(%rip), $3
.endm

.macro counters_off
	write_msr global_control_msr(%rip), $0
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
 * The code in .text, and its struct sequence in the table.  In edi the control; in r10
 * the passes that are left, in r8 where indirect branches lead.
 */
.macro sequence name, middle, begin=nothing, finish=nothing
	.text
\name\()_run:
	push	%rbx
	mov	$4, %r10d
	mov	%edi, %eax
	write_recording
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
	.rept 3
	taken_once \name
	branch	\name\()_loop, \name\()_again, JCC
	.endr
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
	write_recording
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

.macro record_around suffix, enter
	push	%rbx
	mov	%rdx, %r10
	mov	%edi, %eax
	write_recording
l1_first\suffix:
	jmp	l1_first_to\suffix
	nop
l1_first_to\suffix:
	\enter
l1_last\suffix:
	jmp	l1_last_to\suffix
	nop
l1_last_to\suffix:
	recording_off
	mov	%r8d, (%r10)
	mov	%r9d, 4(%r10)
	pop	%rbx
	ret
.endm

.macro enter_svm
	mov	%rsi, %rax
	vmrun	%rax
.endm

/* HOST_RSP and HOST_RIP; VM exit is to the end. */
.macro enter_vmx instruction
	mov	$0x6c14, %eax
	vmwrite	%rsp, %rax
	lea	1f(%rip), %rcx
	mov	$0x6c16, %eax
	vmwrite	%rcx, %rax
	\instruction
1:
.endm

.globl record_around_svm, l1_first, l1_first_to, l1_last, l1_last_to
record_around_svm:
	record_around , enter_svm

.globl record_around_vmx, l1_first_vmx, l1_first_to_vmx, l1_last_vmx, l1_last_to_vmx
record_around_vmx:
	record_around _vmx, "enter_vmx vmlaunch"

/* In r8 and r9 what L2 reads of the filter and of the oldest entry's target. */
.macro l2_code suffix, filter, oldest, exit, end
l2_start\suffix:
	mov	$\filter, %ecx
	rdmsr
	mov	%eax, %r8d
	mov	$\oldest, %ecx
	rdmsr
	mov	%eax, %r9d
l2_first\suffix:
	jmp	l2_first_to\suffix
	nop
l2_first_to\suffix:
	\exit
	exit_pio
l2_last\suffix:
	jmp	l2_last_to\suffix
	nop
l2_last_to\suffix:
	\end
.endm

.globl l2_start, l2_first, l2_first_to, l2_last, l2_last_to
	l2_code , MSR_AMD64_LBR_SELECT, MSR_AMD_SAMP_BR_FROM + 31, exit_cpuid, vmmcall

.globl l2_start_vmx, l2_first_vmx, l2_first_to_vmx, l2_last_vmx, l2_last_to_vmx
	/* CPUID would exit to L1. */
	l2_code _vmx, MSR_ARCH_LBR_CTL, MSR_ARCH_LBR_TO_0 + 31, nothing, vmcall

.section .note.GNU-stack, "", %progbits
