# SPDX-License-Identifier: GPL-2.0
#
# Hypervisors of a page, each with its guest.

# Sends what IA32_PERF_GLOBAL_CTRL was in the guest (R8), is now, and what was saved.
guest_global_ctrl:
	call setup
	call vmx_setup
	all_controls
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 0xf0
	vmwrite_imm GUEST_GLOBAL_CTRL, 1 << 32 | 1
	vmwrite_imm HOST_GLOBAL_CTRL, 0x0f
	enter 1f
	report %rbp
	report_field EXIT_REASON
	report %r8
	report_msr IA32_PERF_GLOBAL_CTRL
	report_field GUEST_GLOBAL_CTRL
	jmp finish
1:	mov $IA32_PERF_GLOBAL_CTRL, %ecx
	rdmsr
	shl $32, %rdx
	or %rdx, %rax
	mov %rax, %r8
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 3
	hlt

# A reserved bit in the guest's field: a VM exit. In the host's: no entry.
guest_global_ctrl_reserved:
	call setup
	call vmx_setup
	all_controls
	vmwrite_imm GUEST_GLOBAL_CTRL, 1 << 49
	enter 1f
	report %rbp
	report_field EXIT_REASON
	vmwrite_imm GUEST_GLOBAL_CTRL, 0
	vmwrite_imm HOST_GLOBAL_CTRL, 1 << 49
	enter 1f
	report %rbp
	report_field INSTRUCTION_ERROR
	jmp finish
1:	hlt

# IA32_DEBUGCTL: the guest's is loaded and saved, the host's is 0 after the exit.
guest_debugctl:
	call setup
	call vmx_setup
	all_controls
	wrmsr_imm IA32_DEBUGCTL, 2
	vmwrite_imm GUEST_DEBUGCTL, 1 << 12
	enter 1f
	report %r8
	report_msr IA32_DEBUGCTL
	report_field GUEST_DEBUGCTL
	vmwrite_imm GUEST_DEBUGCTL, 1 << 13
	enter 1f, vmresume
	report_field EXIT_REASON
	jmp finish
1:	mov $IA32_DEBUGCTL, %ecx
	rdmsr
	mov %eax, %r8d
	wrmsr_imm IA32_DEBUGCTL, 1 << 12 | 1
	hlt

# Fixed counter 0 runs in the guest only: MOV, a loop of 2000, and HLT, which exits.
guest_counts:
	call setup
	call vmx_setup
	all_controls
	wrmsr_imm IA32_FIXED_CTR_CTRL, 1
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 0
	vmwrite_imm GUEST_GLOBAL_CTRL, 1 << 32
	enter 1f
	report_msr IA32_FIXED_CTR0
	jmp finish
1:	mov $1000, %esi
2:	dec %esi
	jnz 2b
	hlt

# It runs in the host only: the ten instructions of `enter`, and the four that stop it.
host_counts:
	call setup
	call vmx_setup
	all_controls
	wrmsr_imm IA32_FIXED_CTR_CTRL, 1
	vmwrite_imm HOST_GLOBAL_CTRL, 1 << 32
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 1 << 32
	enter 1f
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 0
	report_msr IA32_FIXED_CTR0
	jmp finish
1:	mov $1000, %esi
2:	dec %esi
	jnz 2b
	hlt

# RDPMC and RDMSR in the guest: without an exit, then RDPMC with one.
guest_rdpmc_exits:
	call setup
	call vmx_setup
	enter 1f
	report_field EXIT_REASON
	controls PROC_CONTROLS, IA32_VMX_TRUE_PROCBASED_CTLS, PROC_HLT | PROC_MSR_BITMAPS | PROC_RDPMC
	enter 1f, vmresume
	report_field EXIT_REASON
	jmp finish
1:	xor %ecx, %ecx
	rdpmc
	mov $IA32_PMC0, %ecx
	rdmsr
	hlt

# A posted-interrupt descriptor that is aligned as it has to be.
guest_posted_interrupts:
	call setup
	call vmx_setup
	controls PIN_CONTROLS, IA32_VMX_TRUE_PINBASED_CTLS, PIN_EXTERNAL_INTERRUPT | PIN_POSTED_INTERRUPTS
	controls PROC_CONTROLS, IA32_VMX_TRUE_PROCBASED_CTLS, PROC_HLT | PROC_MSR_BITMAPS | PROC_TPR_SHADOW | PROC_SECONDARY
	controls SECONDARY_CONTROLS, IA32_VMX_PROCBASED_CTLS2, SECONDARY_X2APIC | SECONDARY_APIC_REGISTERS | SECONDARY_VIRTUAL_INTERRUPTS
	controls EXIT_CONTROLS, IA32_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64 | EXIT_ACK_INTERRUPT
	enter 1f
	report %rbp
	report_field EXIT_REASON
	jmp finish
1:	hlt

# An external interrupt that waits, and a guest with interrupts off: a VM exit at once.
guest_waiting_interrupt:
	call setup
	call vmx_setup
	controls PIN_CONTROLS, IA32_VMX_TRUE_PINBASED_CTLS, PIN_EXTERNAL_INTERRUPT
	cli
	wrmsr_imm X2APIC_SELF_IPI, VECTOR_IRQ
	enter 1f
	report %rbp
	report_field EXIT_REASON
	jmp finish
1:	nop
	hlt

# The same with a virtual interrupt pending that the guest masks.
guest_virtual_interrupt:
	call setup
	call vmx_setup
	controls PIN_CONTROLS, IA32_VMX_TRUE_PINBASED_CTLS, PIN_EXTERNAL_INTERRUPT
	controls PROC_CONTROLS, IA32_VMX_TRUE_PROCBASED_CTLS, PROC_HLT | PROC_MSR_BITMAPS | PROC_TPR_SHADOW | PROC_SECONDARY
	controls SECONDARY_CONTROLS, IA32_VMX_PROCBASED_CTLS2, SECONDARY_X2APIC | SECONDARY_APIC_REGISTERS | SECONDARY_VIRTUAL_INTERRUPTS
	controls EXIT_CONTROLS, IA32_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64 | EXIT_ACK_INTERRUPT
	# VIRR has the vector, and RVI is it.
	movl $1, VIRTUAL_APIC + 0x200 + (VECTOR_IRQ / 32) * 16
	vmwrite_imm GUEST_INTERRUPT_STATUS, VECTOR_IRQ
	cli
	wrmsr_imm X2APIC_SELF_IPI, VECTOR_IRQ
	enter 1f
	report %rbp
	report_field EXIT_REASON
	report_field GUEST_INTERRUPT_STATUS
	jmp finish
1:	nop
	hlt

# CPUID leaf 1, ECX bit 5, and whether IA32_VMX_BASIC faults.
guest_without_vmx:
	call setup
	mov $1, %eax
	xor %ecx, %ecx
	cpuid
	shr $5, %ecx
	and $1, %ecx
	report %rcx
	catch_gp 1f
	mov $IA32_VMX_BASIC, %ecx
	rdmsr
1:	report %r14
	jmp finish

# A guest with five levels of page tables: CR4.PAE, VMXE and LA57.
guest_la57:
	call setup
	call vmx_setup
	mov %cr3, %rax
	or $3, %eax
	mov %rax, PML5
	vmwrite_imm GUEST_CR3, PML5
	vmwrite_imm GUEST_CR4, 1 << 5 | 1 << 12 | 1 << 13
	enter 1f
	report %rbp
	report_field EXIT_REASON
	jmp finish
1:	hlt

# MSR lists in place of the controls: fixed counter 0 is enabled by the VM-entry MSR-load list,
# stored by the VM-exit MSR-store list and stopped by the VM-exit MSR-load list. The guest: MOV, a
# loop of 2000, and CPUID, which exits.
guest_msr_lists:
	call setup
	call vmx_setup
	wrmsr_imm IA32_PERF_GLOBAL_CTRL, 0
	wrmsr_imm IA32_FIXED_CTR_CTRL, 1
	movl $IA32_PERF_GLOBAL_CTRL, ENTRY_LOAD_LIST
	movl $1, ENTRY_LOAD_LIST + 12
	movl $IA32_FIXED_CTR0, STORE_LIST
	movl $IA32_PERF_GLOBAL_CTRL, STORE_LIST + 16
	movl $IA32_PERF_GLOBAL_CTRL, EXIT_LOAD_LIST
	vmwrite_imm ENTRY_LOAD_ADDRESS, ENTRY_LOAD_LIST
	vmwrite_imm ENTRY_LOAD_COUNT, 1
	vmwrite_imm EXIT_STORE_ADDRESS, STORE_LIST
	vmwrite_imm EXIT_STORE_COUNT, 2
	vmwrite_imm EXIT_LOAD_ADDRESS, EXIT_LOAD_LIST
	vmwrite_imm EXIT_LOAD_COUNT, 1
	enter 1f
	mov STORE_LIST + 8, %rax
	call send
	mov STORE_LIST + 24, %rax
	call send
	report_msr IA32_FIXED_CTR0
	jmp finish
1:	mov $1000, %esi
2:	dec %esi
	jnz 2b
	cpuid

# A halted guest, and a virtual interrupt that waits. Should it not wake the guest, the timer causes
# a VM exit; the guest's CPUID would cause another.
guest_halted:
	call setup
	call vmx_setup
	mov $IA32_VMX_PROCBASED_CTLS2, %ecx
	rdmsr
	shr $8, %edx
	and $3, %edx
	report %rdx
	controls PIN_CONTROLS, IA32_VMX_TRUE_PINBASED_CTLS, PIN_EXTERNAL_INTERRUPT
	controls PROC_CONTROLS, IA32_VMX_TRUE_PROCBASED_CTLS, PROC_MSR_BITMAPS | PROC_TPR_SHADOW | PROC_SECONDARY
	controls SECONDARY_CONTROLS, IA32_VMX_PROCBASED_CTLS2, SECONDARY_X2APIC | SECONDARY_APIC_REGISTERS | SECONDARY_VIRTUAL_INTERRUPTS
	controls EXIT_CONTROLS, IA32_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64 | EXIT_ACK_INTERRUPT
	movl $1, VIRTUAL_APIC + 0x200 + (VECTOR_IRQ / 32) * 16
	vmwrite_imm GUEST_INTERRUPT_STATUS, VECTOR_IRQ
	vmwrite_imm GUEST_RFLAGS, 0x202
	vmwrite_imm GUEST_ACTIVITY, 1
	cli
	wrmsr_imm X2APIC_TIMER_DIVIDE, 0xb
	wrmsr_imm X2APIC_LVTT, VECTOR_IRQ
	wrmsr_imm X2APIC_TIMER_INITIAL, 100000
	enter 1f
	report_field EXIT_REASON
	report %r12
	jmp finish
1:	nop
	cpuid
