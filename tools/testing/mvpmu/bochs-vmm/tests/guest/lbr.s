# SPDX-License-Identifier: GPL-2.0
#
# Last branch records, as a program sees them.

.set IA32_LBR_INFO, 0x1200
.set IA32_LBR_CTL, 0x14ce
.set IA32_LBR_DEPTH, 0x14cf
.set IA32_LBR_FROM, 0x1500
.set IA32_LBR_TO, 0x1600

.set LBREN, 1 << 0
.set LBR_OS, 1 << 1
.set LBR_USR, 1 << 2
.set LBR_CALL_STACK, 1 << 3
.set LBR_CALLS_RETURNS, 7 << 19
.set LBR_KINDS, 0x7f << 16
.set LBR_ALL, LBREN | LBR_OS | LBR_USR | LBR_KINDS

.set VECTOR_DB, 1
.set RFLAGS_TF, 1 << 8
.set RFLAGS_IF, 1 << 9

# Records from here on.
.macro record control=LBR_ALL
	wrmsr_imm IA32_LBR_DEPTH, 32
	wrmsr_imm IA32_LBR_CTL, \control
.endm

# Sends RAX; an address of the image as an offset from its start. Uses RAX, RBX, RCX, RDX.
send_place:
	lea guest_image_start(%rip), %rcx
	mov %rax, %rdx
	sub %rcx, %rdx
	cmp $(guest_image_end - guest_image_start), %rdx
	cmovb %rdx, %rax
	jmp send

# Sends R8 entries, the oldest first: from, to, and what else is said about it.
send_entries:
	dec %r8d
	js 1f
	lea IA32_LBR_FROM(%r8), %ecx
	rdmsr
	shl $32, %rdx
	or %rdx, %rax
	call send_place
	lea IA32_LBR_TO(%r8), %ecx
	rdmsr
	shl $32, %rdx
	or %rdx, %rax
	call send_place
	lea IA32_LBR_INFO(%r8), %ecx
	rdmsr
	shl $32, %rdx
	or %rdx, %rax
	call send
	jmp send_entries
1:	ret

# The same of `count` entries, and no more are recorded.
.macro report_entries count
	wrmsr_imm IA32_LBR_CTL, 0
	mov $(\count), %r8d
	call send_entries
.endm

# Sends the words from `first` to `last`.
.macro report_table first, last
	lea \first(%rip), %rsi
	lea \last(%rip), %rdi
7772:	movslq (%rsi), %rax
	call send
	add $4, %rsi
	cmp %rdi, %rsi
	jb 7772b
.endm

# A branch from here to there, in a table.
.macro goes from, to
	.long \from - guest_image_start, \to - guest_image_start
.endm

lbr_leaf:
	ret

# CPUID: bit 19 of leaf 7, EDX; leaf 1CH. Whether reading IA32_LBR_CTL is #GP.
guest_lbr_cpuid:
	call setup
	mov $7, %eax
	xor %ecx, %ecx
	cpuid
	shr $19, %edx
	and $1, %edx
	report %rdx
	mov $0x1c, %eax
	xor %ecx, %ecx
	cpuid
	mov %ebx, %r8d
	mov %ecx, %r9d
	mov %edx, %r10d
	mov %eax, %eax
	call send
	report %r8
	report %r9
	report %r10
	catch_gp 1f
	mov $IA32_LBR_CTL, %ecx
	rdmsr
1:	report %r14
	jmp finish

# One of each kind, then where they are.
guest_lbr_kinds:
	call setup
	lea lbr_leaf(%rip), %rsi
	lea kinds_call_indirect(%rip), %rdi
	catch_gp kinds_after
	record
	xor %eax, %eax
	jnz kinds_jump
kinds_jz:
	jz kinds_jump
	nop
kinds_jump:
	jmp kinds_call
	nop
kinds_call:
	call lbr_leaf
kinds_jump_indirect:
	jmp *%rdi
	nop
kinds_call_indirect:
	call *%rsi
kinds_int:
	int $VECTOR_IRQ
kinds_mov:
	# No MSR has this number.
	mov %edi, %ecx
kinds_fault:
	rdmsr
kinds_after:
	push $0x10
	lea kinds_end(%rip), %rax
	push %rax
kinds_far:
	lretq
kinds_end:
	report_entries 12
	report_table kinds_table, kinds_table_end
	jmp finish
	.balign 4
kinds_table:
	goes kinds_jz, kinds_jump
	goes kinds_jump, kinds_call
	goes kinds_call, lbr_leaf
	goes lbr_leaf, kinds_jump_indirect
	goes kinds_jump_indirect, kinds_call_indirect
	goes kinds_call_indirect, lbr_leaf
	goes lbr_leaf, kinds_int
	goes kinds_int, on_irq
	goes on_irq_end, kinds_mov
	goes kinds_fault, on_gp
	goes on_gp_end, kinds_after
	goes kinds_far, kinds_end
kinds_table_end:

# To user mode, a loop there of which two branches are taken, and back.
.macro rings control, count
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
	record \control
	lea 1f(%rip), %rcx
	mov $2, %r11d
	sysretq
1:	mov $3, %esi
3:	dec %esi
4:	jnz 3b
	syscall
2:	report_entries \count
	report_table 5f, 6f
	jmp finish
	.balign 4
5:	goes 1b, 3b
	goes 4b, 2b
6:
.endm

guest_lbr_user:
	rings LBREN | LBR_USR | LBR_KINDS, 4
guest_lbr_kernel:
	rings LBREN | LBR_OS | LBR_KINDS, 2

# In a function that another calls, after each has called one more.
guest_lbr_calls:
	call setup
	record LBREN | LBR_OS | LBR_CALL_STACK | LBR_CALLS_RETURNS
calls_outer:
	call calls_in_outer
calls_in_outer:
	call lbr_leaf
calls_inner:
	call calls_in_inner
calls_in_inner:
	call lbr_leaf
	report_entries 3
	report_table calls_table, calls_table_end
	jmp finish
	.balign 4
calls_table:
	goes calls_outer, calls_in_outer
	goes calls_inner, calls_in_inner
calls_table_end:

# A single step.
guest_lbr_debug:
	call setup
	gate VECTOR_DB, on_db
	record
	pushfq
	orq $RFLAGS_TF, (%rsp)
	popfq
	nop
	report_msr IA32_LBR_CTL
	report_entries 1
	jmp finish
on_db:
	andq $~RFLAGS_TF, 16(%rsp)
	iretq

# Which of the bits of VMX there are, and whether the field is there.
guest_lbr_vmx:
	call setup
	call vmx_setup
	mov $IA32_VMX_TRUE_EXIT_CTLS, %ecx
	rdmsr
	and $EXIT_CLEAR_LBR_CTL, %edx
	report %rdx
	mov $IA32_VMX_TRUE_ENTRY_CTLS, %ecx
	rdmsr
	and $ENTRY_LOAD_LBR_CTL, %edx
	report %rdx
	vmwrite_imm GUEST_LBR_CTL, LBR_ALL
	setnbe %al
	movzbl %al, %eax
	call send
	jmp finish

# Sends what IA32_LBR_CTL was in the guest (R8), is now, and what was saved.
.macro report_lbr_ctl
	report %r8
	report_msr IA32_LBR_CTL
	report_field GUEST_LBR_CTL
.endm

# The guest's is loaded, saved and cleared; a reserved bit; without the controls it is only saved.
guest_lbr_control:
	call setup
	call vmx_setup
	controls EXIT_CONTROLS, IA32_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64 | EXIT_CLEAR_LBR_CTL
	controls ENTRY_CONTROLS, IA32_VMX_TRUE_ENTRY_CTLS, ENTRY_GUEST_64 | ENTRY_LOAD_LBR_CTL
	vmwrite_imm GUEST_LBR_CTL, LBR_ALL
	record LBREN | LBR_OS | LBR_KINDS
control_call:
	call lbr_leaf
control_called:
	enter control_guest
	report %rbp
	report_field EXIT_REASON
	report_lbr_ctl
	report_entries 4
	report_table control_table, control_table_end
	vmwrite_imm GUEST_LBR_CTL, 1 << 4
	enter control_guest, vmresume
	report_field EXIT_REASON
	controls EXIT_CONTROLS, IA32_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64
	controls ENTRY_CONTROLS, IA32_VMX_TRUE_ENTRY_CTLS, ENTRY_GUEST_64
	wrmsr_imm IA32_LBR_CTL, LBR_USR
	enter control_guest, vmresume
	report_lbr_ctl
	jmp finish
control_guest:
	jmp control_in_guest
control_in_guest:
	mov $IA32_LBR_CTL, %ecx
	rdmsr
	mov %eax, %r8d
	wrmsr_imm IA32_LBR_CTL, LBREN | LBR_CALL_STACK
	hlt
	.balign 4
control_table:
	goes control_call, lbr_leaf
	goes lbr_leaf, control_called
	goes control_guest, control_in_guest
control_table_end:

# VM entry injects an interrupt, then #DB: what is recorded, and the guest's IA32_LBR_CTL after the second.
guest_lbr_injected:
	call setup
	call vmx_setup
	gate VECTOR_DB, on_injected_db
	controls EXIT_CONTROLS, IA32_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64 | EXIT_CLEAR_LBR_CTL
	controls ENTRY_CONTROLS, IA32_VMX_TRUE_ENTRY_CTLS, ENTRY_GUEST_64 | ENTRY_LOAD_LBR_CTL
	vmwrite_imm GUEST_LBR_CTL, LBR_ALL
	vmwrite_imm GUEST_RFLAGS, RFLAGS_IF | 2
	vmwrite_imm ENTRY_EVENT, EVENT_VALID | VECTOR_IRQ
	enter injected_guest
	report_entries 2
	vmwrite_imm GUEST_LBR_CTL, LBR_ALL
	vmwrite_imm ENTRY_EVENT, EVENT_VALID | EVENT_EXCEPTION | VECTOR_DB
	wrmsr_imm IA32_LBR_DEPTH, 32
	enter injected_guest, vmresume
	report_field GUEST_LBR_CTL
	report_entries 2
	report_table injected_table, injected_table_end
	jmp finish
injected_guest:
	hlt
on_injected_db:
	iretq
	.balign 4
injected_table:
	goes injected_guest, on_irq
	goes on_irq_end, injected_guest
	goes on_injected_db, injected_guest
injected_table_end:
