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

# To user mode, a loop there, and back, with this traced.
.macro pt_rings which
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
	trace TRACE_EN | BRANCH_EN | \which
	lea 1f(%rip), %rcx
	mov $2, %r11d
	sysretq
1:	mov $30, %esi
3:	test $5, %sil
	jz 4f
	nop
4:	dec %esi
	jnz 3b
	syscall
2:	report_trace
	jmp finish
.endm

guest_pt_user:
	pt_rings PT_USER
guest_pt_kernel:
	pt_rings PT_OS
guest_pt_both:
	pt_rings PT_USER | PT_OS

# A guest is entered twice, and is interrupted by an event that VM entry injects; all of it is traced, with
# VMPTRLD, or with VMX concealed.
.macro pt_system secondary, exit, entry
	call setup
	call vmx_setup
	controls PROC_CONTROLS, IA32_VMX_TRUE_PROCBASED_CTLS, PROC_HLT | PROC_MSR_BITMAPS | PROC_SECONDARY
	controls SECONDARY_CONTROLS, IA32_VMX_PROCBASED_CTLS2, \secondary
	controls EXIT_CONTROLS, IA32_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64 | \exit
	controls ENTRY_CONTROLS, IA32_VMX_TRUE_ENTRY_CTLS, ENTRY_GUEST_64 | \entry
	lea vmcs_pointer(%rip), %r9
	vmclear (%r9)
	trace TRACE_EN | PT_OS | BRANCH_EN
	vmptrld (%r9)
	enter pt_system_guest
	vmwrite_imm GUEST_RFLAGS, 1 << 9 | 2
	vmwrite_imm ENTRY_EVENT, EVENT_VALID | VECTOR_IRQ
	enter pt_system_guest, vmresume
	report_trace
	jmp finish
.endm
guest_pt_system:
	pt_system 0, 0, 0
guest_pt_concealed:
	pt_system SECONDARY_CONCEAL, EXIT_CONCEAL, ENTRY_CONCEAL
pt_system_guest:
	mov %cr3, %rax
	mov %rax, %cr3
	mov $10, %esi
1:	call pt_leaf
	dec %esi
	jnz 1b
	hlt

# Only the guest is traced, over two entries.
guest_pt_guest:
	call setup
	call vmx_setup
	controls EXIT_CONTROLS, IA32_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64 | EXIT_CLEAR_RTIT_CTL
	controls ENTRY_CONTROLS, IA32_VMX_TRUE_ENTRY_CTLS, ENTRY_GUEST_64 | ENTRY_LOAD_RTIT_CTL
	vmwrite_imm GUEST_RTIT_CTL, TRACE_EN | PT_OS | BRANCH_EN
	wrmsr_imm IA32_RTIT_OUTPUT_BASE, PT_OUTPUT
	wrmsr_imm IA32_RTIT_OUTPUT_MASK_PTRS, 0xffff
	enter pt_system_guest
	enter pt_system_guest, vmresume
	call send_trace
	jmp finish

# The same with output to guest-physical addresses, of which those from PT_OUTPUT on are at PT_ELSEWHERE, and
# the first page cannot be written at first. Sends the exit reasons, with where and why of the first one.
.set EPT_TABLES, 0x700000
.set PT_ELSEWHERE, 0x800000
.set GUEST_PHYSICAL_ADDRESS, 0x2400
.set EXIT_QUALIFICATION, 0x6400
guest_pt_ept:
	call setup
	call vmx_setup
	# Four levels; the last is of the 2 MiB at PT_OUTPUT.
	movq $(EPT_TABLES + 0x1007), EPT_TABLES
	movq $(EPT_TABLES + 0x2007), EPT_TABLES + 0x1000
	mov $EPT_TABLES + 0x2000, %edi
	mov $0xb7, %eax
1:	mov %rax, (%rdi)
	add $8, %edi
	add $0x200000, %eax
	cmp $(512 * 0x200000 + 0xb7), %eax
	jne 1b
	movq $(EPT_TABLES + 0x3007), EPT_TABLES + 0x2000 + 8 * (PT_OUTPUT >> 21)
	movq $(PT_ELSEWHERE + 0x31), EPT_TABLES + 0x3000
	mov $EPT_TABLES + 0x3000 + 8, %edi
	mov $(PT_ELSEWHERE + 0x1037), %eax
1:	mov %rax, (%rdi)
	add $8, %edi
	add $0x1000, %eax
	cmp $(PT_ELSEWHERE + 0x200037), %eax
	jne 1b
	controls PROC_CONTROLS, IA32_VMX_TRUE_PROCBASED_CTLS, PROC_HLT | PROC_MSR_BITMAPS | PROC_SECONDARY
	controls SECONDARY_CONTROLS, IA32_VMX_PROCBASED_CTLS2, SECONDARY_PT_GUEST_PHYSICAL | SECONDARY_EPT
	controls EXIT_CONTROLS, IA32_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64 | EXIT_CLEAR_RTIT_CTL
	controls ENTRY_CONTROLS, IA32_VMX_TRUE_ENTRY_CTLS, ENTRY_GUEST_64 | ENTRY_LOAD_RTIT_CTL
	vmwrite_imm EPT_POINTER, EPT_TABLES + 0x1e
	vmwrite_imm GUEST_RTIT_CTL, TRACE_EN | PT_OS | BRANCH_EN
	wrmsr_imm IA32_RTIT_OUTPUT_BASE, PT_OUTPUT
	wrmsr_imm IA32_RTIT_OUTPUT_MASK_PTRS, 0xffff
	enter pt_system_guest
	report_field EXIT_REASON
	report_field GUEST_PHYSICAL_ADDRESS
	report_field EXIT_QUALIFICATION
	movq $(PT_ELSEWHERE + 0x37), EPT_TABLES + 0x3000
	enter pt_system_guest, vmresume
	report_field EXIT_REASON
	mov PT_OUTPUT, %rax
	call send
	# For send_trace.
	mov $PT_ELSEWHERE, %esi
	mov $PT_OUTPUT, %edi
	mov $4096, %ecx
	rep movsb
	call send_trace
	jmp finish

# A table of a page that asks for an interrupt and one that stops: sends what came of it.
guest_pt_topa:
	call setup
	movq $(PT_OUTPUT + 4), PT_TABLE
	movq $(PT_OUTPUT + 0x1000 + 0x10), PT_TABLE + 8
	wrmsr_imm X2APIC_LVTPC, 0x400
	wrmsr_imm IA32_RTIT_OUTPUT_BASE, PT_TABLE
	wrmsr_imm IA32_RTIT_OUTPUT_MASK_PTRS, 0
	wrmsr_imm IA32_RTIT_CTL, TRACE_EN | PT_OS | PT_TOPA | BRANCH_EN
	mov $60000, %esi
1:	dec %esi
	jnz 1b
	wrmsr_imm IA32_RTIT_CTL, 0
	report %r13
	report_msr IA32_PERF_GLOBAL_STATUS
	report_msr IA32_RTIT_STATUS
	report_msr IA32_RTIT_OUTPUT_BASE
	report_msr IA32_RTIT_OUTPUT_MASK_PTRS
	jmp finish
