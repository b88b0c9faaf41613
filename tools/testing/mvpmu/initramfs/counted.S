/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A program of known length, without a C library.  It reads a byte and, for each word
 * on its command line, its own name included, does 16 rounds: it moves to the other
 * one of the first two CPUs, if there are two, flushes a line of the cache, and goes
 * round a loop.  Then it says "done" and reads another byte, so that it can be kept
 * from starting and from ending.  In user mode these are
 *
 *	instructions	5 up to the first read, 3 behind the second, and between them
 *			13 + rounds * (13 + 2 * ITERATIONS)
 *	branches	4 + rounds * (4 + ITERATIONS), with the system calls
 *	cache misses	rounds, on the test machines
 */
#include <sys/syscall.h>

#define ROUNDS		16
#define ITERATIONS	500000

	.macro	read_byte
	lea	-8(%rsp), %rsi
	xor	%edi, %edi
	xor	%eax, %eax		/* read */
	syscall
	.endm

	.text
	.globl	_start
	.type	_start, @function
_start:
	mov	$1, %edx
	read_byte
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
	mov	$DONE, %edx
	lea	done(%rip), %rsi
	mov	$1, %edi
	mov	$SYS_write, %eax
	syscall
	mov	$1, %edx
	read_byte
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
done:	.ascii	"done\n"
	.set	DONE, . - done

	.section .note.GNU-stack, "", @progbits
