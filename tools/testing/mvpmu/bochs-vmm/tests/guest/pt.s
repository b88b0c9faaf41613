# SPDX-License-Identifier: GPL-2.0
#
# Intel PT, as a program sees it.

.set IA32_VMX_MISC, 0x485
.set IA32_RTIT_OUTPUT_BASE, 0x560
.set IA32_RTIT_OUTPUT_MASK_PTRS, 0x561
.set IA32_RTIT_CTL, 0x570
.set IA32_RTIT_STATUS, 0x571
.set GUEST_RTIT_CTL, 0x2814

.set TRACE_EN, 1 << 0
.set PT_OS, 1 << 2
.set PT_USER, 1 << 3
.set PT_TOPA, 1 << 8
.set PT_TSC_EN, 1 << 10
.set BRANCH_EN, 1 << 13

.set MISC_PT, 1 << 14
.set SECONDARY_EPT, 1 << 1
.set SECONDARY_CONCEAL, 1 << 19
.set SECONDARY_PT_GUEST_PHYSICAL, 1 << 24
.set EXIT_CONCEAL, 1 << 24
.set EXIT_CLEAR_RTIT_CTL, 1 << 25
.set ENTRY_CONCEAL, 1 << 17
.set ENTRY_LOAD_RTIT_CTL, 1 << 18

# Sends what may be 1 of some controls.
.macro report_offered capability, which
	mov $(\capability), %ecx
	rdmsr
	and $(\which), %edx
	mov %edx, %eax
	call send
.endm

# CPUID: bit 25 of leaf 7, EBX; leaf 14H. Whether reading IA32_RTIT_CTL is #GP.
guest_pt_cpuid:
	call setup
	mov $7, %eax
	xor %ecx, %ecx
	cpuid
	shr $25, %ebx
	and $1, %ebx
	report %rbx
	mov $0x14, %eax
	xor %ecx, %ecx
	cpuid
	mov %ebx, %r8d
	mov %ecx, %r9d
	mov %eax, %eax
	call send
	report %r8
	report %r9
	mov $0x14, %eax
	mov $1, %ecx
	cpuid
	mov %ebx, %r8d
	mov %eax, %eax
	call send
	report %r8
	catch_gp 1f
	mov $IA32_RTIT_CTL, %ecx
	rdmsr
1:	report %r14
	jmp finish

# Which of the bits of VMX there are, and whether the field is there.
guest_pt_vmx:
	call setup
	call vmx_setup
	mov $IA32_VMX_MISC, %ecx
	rdmsr
	and $MISC_PT, %eax
	call send
	report_offered IA32_VMX_PROCBASED_CTLS2, SECONDARY_CONCEAL | SECONDARY_PT_GUEST_PHYSICAL
	report_offered IA32_VMX_TRUE_EXIT_CTLS, EXIT_CONCEAL | EXIT_CLEAR_RTIT_CTL
	report_offered IA32_VMX_TRUE_ENTRY_CTLS, ENTRY_CONCEAL | ENTRY_LOAD_RTIT_CTL
	vmwrite_imm GUEST_RTIT_CTL, 0
	setnbe %al
	movzbl %al, %eax
	call send
	jmp finish

# Sends what IA32_RTIT_CTL was in the guest (R8), is now, and what was saved.
.macro report_rtit_ctl
	report %r8
	report_msr IA32_RTIT_CTL
	report_field GUEST_RTIT_CTL
.endm

# The guest's is loaded, saved and cleared; a reserved bit; without the controls it is only saved.
guest_pt_control:
	call setup
	call vmx_setup
	controls EXIT_CONTROLS, IA32_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64 | EXIT_CLEAR_RTIT_CTL
	controls ENTRY_CONTROLS, IA32_VMX_TRUE_ENTRY_CTLS, ENTRY_GUEST_64 | ENTRY_LOAD_RTIT_CTL
	vmwrite_imm GUEST_RTIT_CTL, TRACE_EN | PT_USER | BRANCH_EN
	wrmsr_imm IA32_RTIT_CTL, PT_OS
	enter pt_control_guest
	report %rbp
	report_field EXIT_REASON
	report_rtit_ctl
	vmwrite_imm GUEST_RTIT_CTL, 1 << 6
	enter pt_control_guest, vmresume
	report_field EXIT_REASON
	controls EXIT_CONTROLS, IA32_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64
	controls ENTRY_CONTROLS, IA32_VMX_TRUE_ENTRY_CTLS, ENTRY_GUEST_64
	wrmsr_imm IA32_RTIT_CTL, BRANCH_EN
	enter pt_control_guest, vmresume
	report_rtit_ctl
	jmp finish
pt_control_guest:
	mov $IA32_RTIT_CTL, %ecx
	rdmsr
	mov %eax, %r8d
	wrmsr_imm IA32_RTIT_CTL, PT_USER
	hlt

# Enters with secondary controls; sends whether that failed, and the error or the exit reason.
.macro try_controls secondary, exit, entry
	mov $IA32_RTIT_CTL, %ecx
	controls PROC_CONTROLS, IA32_VMX_TRUE_PROCBASED_CTLS, PROC_HLT | PROC_MSR_BITMAPS | PROC_SECONDARY
	controls SECONDARY_CONTROLS, IA32_VMX_PROCBASED_CTLS2, \secondary
	controls EXIT_CONTROLS, IA32_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64 | \exit
	controls ENTRY_CONTROLS, IA32_VMX_TRUE_ENTRY_CTLS, ENTRY_GUEST_64 | \entry
	enter pt_controls_guest
	report %rbp
	mov $EXIT_REASON, %r8d
	mov $INSTRUCTION_ERROR, %eax
	test %ebp, %ebp
	cmovnz %eax, %r8d
	vmread %r8, %rax
	call send
.endm

# TraceEn is set while IA32_RTIT_CTL is loaded, and while it is not; guest-physical addresses without EPT, and
# without the controls that go with them.
guest_pt_controls:
	call setup
	call vmx_setup
	vmwrite_imm GUEST_RTIT_CTL, 0
	wrmsr_imm IA32_RTIT_CTL, TRACE_EN
	try_controls 0, EXIT_CLEAR_RTIT_CTL, ENTRY_LOAD_RTIT_CTL
	try_controls 0, 0, 0
	wrmsr_imm IA32_RTIT_CTL, 0
	lea vmcs_pointer(%rip), %rbx
	vmclear (%rbx)
	vmptrld (%rbx)
	try_controls SECONDARY_PT_GUEST_PHYSICAL, EXIT_CLEAR_RTIT_CTL, ENTRY_LOAD_RTIT_CTL
	vmwrite_imm EPT_POINTER, 0x21a01e
	try_controls SECONDARY_PT_GUEST_PHYSICAL | SECONDARY_EPT, 0, ENTRY_LOAD_RTIT_CTL
	try_controls SECONDARY_PT_GUEST_PHYSICAL | SECONDARY_EPT, EXIT_CLEAR_RTIT_CTL, 0
	jmp finish
pt_controls_guest:
	hlt

# Memory for traces: a table, and regions.
.set PT_TABLE, 0x400000
.set PT_OUTPUT, 0x600000

# Traces into one region of 64 KiB from here on, and sends what it holds in the end. Uses RAX, RCX, RDX.
.macro trace control
	wrmsr_imm IA32_RTIT_OUTPUT_BASE, PT_OUTPUT
	wrmsr_imm IA32_RTIT_OUTPUT_MASK_PTRS, 0xffff
	wrmsr_imm IA32_RTIT_CTL, \control
.endm
.macro report_trace
	wrmsr_imm IA32_RTIT_CTL, 0
	call send_trace
.endm

# Sends the words of the region in which something was written.
send_trace:
	mov $IA32_RTIT_OUTPUT_MASK_PTRS, %ecx
	rdmsr
	mov %edx, %edi
	add $7, %edi
	shr $3, %edi
	mov $PT_OUTPUT, %esi
1:	mov (%rsi), %rax
	call send
	add $8, %rsi
	dec %edi
	jnz 1b
	ret

# Branches of all kinds, and what comes in between.
guest_pt_kinds:
	call setup
	trace TRACE_EN | PT_OS | PT_TSC_EN | BRANCH_EN
	call pt_kinds
	report_trace
	jmp finish
pt_kinds:
	mov $20, %esi
	lea pt_leaf(%rip), %rdi
1:	test $3, %sil
	jz 2f
	nop
2:	call pt_leaf
	call *%rdi
	dec %esi
	jnz 1b
	lea 3f(%rip), %rdi
	jmp *%rdi
	nop
3:	# No MSR has this number.
	catch_gp 4f
	mov $0xffff, %ecx
	rdmsr
	nop
4:	mov %cr3, %rax
	mov %rax, %cr3
	push $0x10
	lea 5f(%rip), %rax
	push %rax
	lretq
5:	ret
pt_leaf:
	ret
