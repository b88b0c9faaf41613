/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A program without a C library for traces of Intel PT: some thousand instructions, with
 * branches of all kinds, system calls and page faults, so that perf can decode it in a
 * moment.
 */
#include <sys/syscall.h>

#define ROUNDS		300

	.text
	.globl	_start
	.type	_start, @function
_start:
	mov	$ROUNDS, %ebx
	lea	places(%rip), %r12
.Lround:
	test	$3, %bl
	jz	1f
	call	leaf
1:	mov	%ebx, %eax
	and	$1, %eax
	movslq	(%r12, %rax, 4), %rax
	add	%r12, %rax
	call	*%rax
	test	$63, %bl
	jnz	2f
	mov	$SYS_getpid, %eax
	syscall
	mov	pages(%rip), %rax
2:	lea	3f(%rip), %rax
	jmp	*%rax
	nop
3:	dec	%ebx
	jnz	.Lround
	mov	$SYS_exit, %eax
	xor	%edi, %edi
	syscall
	.size	_start, . - _start

leaf:
	mov	$8, %ecx
1:	dec	%ecx
	jnz	1b
	ret
other:
	call	leaf
	ret

	.section .rodata
	.balign	4
places:	.long	leaf - places
	.long	other - places

	.bss
	.balign	4096
pages:	.skip	8192

	.section .note.GNU-stack, "", @progbits
