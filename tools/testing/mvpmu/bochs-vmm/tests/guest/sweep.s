# SPDX-License-Identifier: GPL-2.0

.set MACHINE_LEAF, 0x4d767075
.set SWEEP_BEGIN, 0x100
.set SWEEP_END, 0x101
.set SWEEP_RESULT, 0x102
.set SWEEP_PLACE, 0x103

# Three instructions. Uses RAX, RBX, RCX, RDX.
.macro tell what
	mov $MACHINE_LEAF, %eax
	mov $\what, %ecx
	cpuid
.endm

# Uses the same.
.macro name_place what
	lea \what(%rip), %rbx
	lea 1(%rbx), %rdx
	tell SWEEP_PLACE
.endm

# 10 instructions, and the 4 of a result: how many NMIs there were.
guest_sweep:
	call setup
	tell SWEEP_BEGIN
	.rept 10
	nop
	.endr
	mov %r13, %rbx
	tell SWEEP_RESULT
	tell SWEEP_END
	jmp finish

# The same, with a result that no NMI changes.
guest_sweep_indifferent:
	call setup
	tell SWEEP_BEGIN
	.rept 10
	nop
	.endr
	mov $7, %ebx
	tell SWEEP_RESULT
	tell SWEEP_END
	jmp finish

# An NMI has no end.
guest_sweep_hang:
	call setup
	gate VECTOR_NMI, on_nmi_hang
	tell SWEEP_BEGIN
	.rept 10
	nop
	.endr
	tell SWEEP_END
	jmp finish
on_nmi_hang:
	jmp on_nmi_hang

# 5 instructions between entry and return of a place, twice, and some around them.
guest_sweep_place:
	call setup
	name_place place
	jmp swept_places

# There is one more, which is not entered.
guest_sweep_no_place:
	call setup
	name_place place
	name_place finish
	jmp swept_places

swept_places:
	tell SWEEP_BEGIN
	nop
	call place
	nop
	call place
	mov %r13, %rbx
	tell SWEEP_RESULT
	tell SWEEP_END
	jmp finish
place:
	nop
	call in_place
	ret
in_place:
	nop
	ret
