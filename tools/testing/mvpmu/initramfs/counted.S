/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A program of known length, without a C library.  For each word on its command
 * line, its own name included, it does 16 rounds: it moves to the other one of the
 * first two CPUs, if there are two, flushes a line of the cache, and goes round a
 * loop.  In user mode these are
 *
 *	instructions	6 + rounds * (13 + 2 * ITERATIONS)
 *	branches	1 + rounds * (4 + ITERATIONS), with the system calls
 *	cache misses	rounds, on the test machines
 */
#include <sys/syscall.h>

#define ROUNDS		16
#define ITERATIONS	500000

	.text
	.globl	_start
	.type	_start, @function
_start:
	mov	(%rsp), %rbx
	imul	$ROUNDS, %rbx, %rbx
	lea	cpus(%rip), %r12
.Lround:
	mov	%ebx, %edx
	and	$1, %edx
	lea	(%r12, %rdx, 8), %rdx
	mov	$8, %esi
	xor	%edi, %edi
	mov	$SYS_sched_setaffinity, %eax
	syscall
	clflush	(%rsp)
	mov	$ITERATIONS, %ecx
	call	loop
	dec	%rbx
	jnz	.Lround
	mov	$SYS_exit, %eax
	xor	%edi, %edi
	syscall
	.size	_start, . - _start

	/* A function, for its name in reports. */
	.globl	loop
	.type	loop, @function
loop:
	dec	%rcx
	jnz	loop
	ret
	.size	loop, . - loop

	.section .rodata
	.balign	8
cpus:	.quad	1 << 0
	.quad	1 << 1

	.section .note.GNU-stack, "", @progbits
