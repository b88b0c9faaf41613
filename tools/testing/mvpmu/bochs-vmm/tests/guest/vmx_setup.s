# SPDX-License-Identifier: GPL-2.0
#
# VMX: a hypervisor of a page that runs a guest in its own address space.

.set IA32_FEATURE_CONTROL, 0x3a
.set IA32_VMX_BASIC, 0x480
.set IA32_VMX_PROCBASED_CTLS2, 0x48b
.set IA32_VMX_TRUE_PINBASED_CTLS, 0x48d
.set IA32_VMX_TRUE_PROCBASED_CTLS, 0x48e
.set IA32_VMX_TRUE_EXIT_CTLS, 0x48f
.set IA32_VMX_TRUE_ENTRY_CTLS, 0x490
.set X2APIC_SELF_IPI, 0x83f

.set VMXON_REGION, 0x210000
.set VMCS, 0x211000
.set MSR_BITMAP, 0x212000
.set VIRTUAL_APIC, 0x213000
.set APIC_ACCESS, 0x214000
# Aligned to 64 bytes, but not to a page.
.set POSTED_DESCRIPTOR, 0x215040
.set PML5, 0x216000
.set STORE_LIST, 0x217000
.set ENTRY_LOAD_LIST, 0x218000
.set EXIT_LOAD_LIST, 0x219000
.set GUEST_STACK, 0x220000

.set PIN_EXTERNAL_INTERRUPT, 1 << 0
.set PIN_POSTED_INTERRUPTS, 1 << 7
.set PROC_HLT, 1 << 7
.set PROC_RDPMC, 1 << 11
.set PROC_TPR_SHADOW, 1 << 21
.set PROC_MSR_BITMAPS, 1 << 28
.set PROC_SECONDARY, 1 << 31
.set SECONDARY_APIC_REGISTERS, 1 << 8
.set SECONDARY_VIRTUAL_INTERRUPTS, 1 << 9
.set SECONDARY_X2APIC, 1 << 4
.set EXIT_SAVE_DEBUG, 1 << 2
.set EXIT_HOST_64, 1 << 9
.set EXIT_LOAD_GLOBAL_CTRL, 1 << 12
.set EXIT_ACK_INTERRUPT, 1 << 15
.set EXIT_CLEAR_LBR_CTL, 1 << 26
.set EXIT_SAVE_GLOBAL_CTRL, 1 << 30
.set ENTRY_LOAD_DEBUG, 1 << 2
.set ENTRY_GUEST_64, 1 << 9
.set ENTRY_LOAD_GLOBAL_CTRL, 1 << 13
.set ENTRY_LOAD_LBR_CTL, 1 << 21

# An event that VM entry injects.
.set EVENT_VALID, 1 << 31
.set EVENT_EXCEPTION, 3 << 8

.set POSTED_VECTOR, 0x0002
.set GUEST_INTERRUPT_STATUS, 0x0810
.set MSR_BITMAP_ADDRESS, 0x2004
.set EXIT_STORE_ADDRESS, 0x2006
.set EXIT_LOAD_ADDRESS, 0x2008
.set ENTRY_LOAD_ADDRESS, 0x200a
.set VIRTUAL_APIC_ADDRESS, 0x2012
.set EPT_POINTER, 0x201a
.set POSTED_DESCRIPTOR_ADDRESS, 0x2016
.set GUEST_DEBUGCTL, 0x2802
.set GUEST_GLOBAL_CTRL, 0x2808
.set GUEST_LBR_CTL, 0x2816
.set HOST_GLOBAL_CTRL, 0x2c04
.set PIN_CONTROLS, 0x4000
.set PROC_CONTROLS, 0x4002
.set EXIT_CONTROLS, 0x400c
.set ENTRY_CONTROLS, 0x4012
.set SECONDARY_CONTROLS, 0x401e
.set EXIT_STORE_COUNT, 0x400e
.set EXIT_LOAD_COUNT, 0x4010
.set ENTRY_LOAD_COUNT, 0x4014
.set ENTRY_EVENT, 0x4016
.set INSTRUCTION_ERROR, 0x4400
.set EXIT_REASON, 0x4402
.set GUEST_CR3, 0x6802
.set GUEST_CR4, 0x6804
.set GUEST_RSP, 0x681c
.set GUEST_RIP, 0x681e
.set GUEST_RFLAGS, 0x6820
.set GUEST_ACTIVITY, 0x4826
.set HOST_RSP, 0x6c14
.set HOST_RIP, 0x6c16

# Writes a 64-bit constant to a field of the VMCS. Uses RAX, RBX.
.macro vmwrite_imm field, value
	mov $(\field), %ebx
	movabs $(\value), %rax
	vmwrite %rax, %rbx
.endm

# Sends a field of the VMCS.
.macro report_field field
	mov $(\field), %ebx
	vmread %rbx, %rax
	call send
.endm

# Writes controls: those asked for and those that must be 1. Uses RAX, RBX, RCX, RDX.
.macro controls field, capability, wanted
	mov $(\capability), %ecx
	rdmsr
	or $(\wanted), %eax
	and %edx, %eax
	mov $(\field), %ebx
	vmwrite %rax, %rbx
.endm

# Fields with the same value in every program.
	.balign 8
fixed_fields:
	# No shadow VMCS; guest selectors; guest limits, access rights, bases.
	.quad 0x2800, -1, 0x2804, 0
	.quad 0x0800, 0x18, 0x0802, 0x10, 0x0804, 0x18, 0x0806, 0x18, 0x0808, 0x18, 0x080a, 0x18
	.quad 0x080c, 0, 0x080e, 0x18
	.quad 0x4800, 0xffffffff, 0x4802, 0xffffffff, 0x4804, 0xffffffff, 0x4806, 0xffffffff
	.quad 0x4808, 0xffffffff, 0x480a, 0xffffffff, 0x480c, 0, 0x480e, 0x67, 0x4810, 0x1f
	.quad 0x4812, 0xfff
	.quad 0x4814, 0xc093, 0x4816, 0xa09b, 0x4818, 0xc093, 0x481a, 0xc093, 0x481c, 0xc093
	.quad 0x481e, 0xc093, 0x4820, 0x10000, 0x4822, 0x8b
	.quad 0x6806, 0, 0x6808, 0, 0x680a, 0, 0x680c, 0, 0x680e, 0, 0x6810, 0, 0x6812, 0, 0x6814, 0
	.quad 0x6816, 0x6000, 0x6818, IDT
	# DR7, RFLAGS, activity, interruptibility, pending debug exceptions, SYSENTER.
	.quad 0x681a, 0x400, 0x6820, 2, 0x4826, 0, 0x4824, 0, 0x6822, 0, 0x482a, 0, 0x6824, 0, 0x6826, 0
	# Host selectors (ES CS SS DS FS GS TR), bases, SYSENTER.
	.quad 0x0c00, 0x18, 0x0c02, 0x10, 0x0c04, 0x18, 0x0c06, 0x18, 0x0c08, 0x18, 0x0c0a, 0x18
	.quad 0x0c0c, 0x18
	.quad 0x6c06, 0, 0x6c08, 0, 0x6c0a, 0, 0x6c0c, 0x6000, 0x6c0e, IDT, 0x4c00, 0, 0x6c10, 0
	.quad 0x6c12, 0
	# EFER, guest and host; the controls that load it are not asked for.
	.quad 0x2806, 0x500, 0x2c02, 0x500
	# No exceptions, masks, MSR lists or events.
	.quad 0x4004, 0, 0x4006, 0, 0x4008, 0, 0x400a, 0, 0x400e, 0, 0x4010, 0, 0x4014, 0, 0x4016, 0
	.quad 0x6000, 0, 0x6002, 0
	.quad MSR_BITMAP_ADDRESS, MSR_BITMAP, VIRTUAL_APIC_ADDRESS, VIRTUAL_APIC
	.quad POSTED_DESCRIPTOR_ADDRESS, POSTED_DESCRIPTOR, POSTED_VECTOR, 0xf2
	.quad GUEST_RSP, GUEST_STACK
	.quad GUEST_DEBUGCTL, 0, GUEST_GLOBAL_CTRL, 0, HOST_GLOBAL_CTRL, 0
fixed_fields_end:

# VMX on, a current VMCS with everything but controls and entry points.
vmx_setup:
	mov $IA32_FEATURE_CONTROL, %ecx
	rdmsr
	test $1, %eax
	jnz 1f
	or $5, %eax
	wrmsr
1:	mov %cr4, %rax
	or $(1 << 13), %eax
	mov %rax, %cr4
	mov $IA32_VMX_BASIC, %ecx
	rdmsr
	and $0x7fffffff, %eax
	mov %eax, VMXON_REGION
	mov %eax, VMCS
	lea vmxon_pointer(%rip), %rbx
	vmxon (%rbx)
	lea vmcs_pointer(%rip), %rbx
	vmclear (%rbx)
	vmptrld (%rbx)

	lea fixed_fields(%rip), %rsi
	lea fixed_fields_end(%rip), %rdi
2:	mov (%rsi), %rbx
	mov 8(%rsi), %rax
	vmwrite %rax, %rbx
	add $16, %rsi
	cmp %rdi, %rsi
	jb 2b
	mov %cr0, %rax
	mov $0x6800, %ebx
	vmwrite %rax, %rbx
	mov $0x6c00, %ebx
	vmwrite %rax, %rbx
	mov %cr3, %rax
	mov $0x6802, %ebx
	vmwrite %rax, %rbx
	mov $0x6c02, %ebx
	vmwrite %rax, %rbx
	mov %cr4, %rax
	mov $0x6804, %ebx
	vmwrite %rax, %rbx
	mov $0x6c04, %ebx
	vmwrite %rax, %rbx

	controls PIN_CONTROLS, IA32_VMX_TRUE_PINBASED_CTLS, 0
	controls PROC_CONTROLS, IA32_VMX_TRUE_PROCBASED_CTLS, PROC_HLT | PROC_MSR_BITMAPS
	controls EXIT_CONTROLS, IA32_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64
	controls ENTRY_CONTROLS, IA32_VMX_TRUE_ENTRY_CTLS, ENTRY_GUEST_64
	ret
	.balign 8
vmxon_pointer:
	.quad VMXON_REGION
vmcs_pointer:
	.quad VMCS

# What the tests about IA32_PERF_GLOBAL_CTRL ask for.
.macro all_controls
	controls EXIT_CONTROLS, IA32_VMX_TRUE_EXIT_CTLS, EXIT_HOST_64 | EXIT_LOAD_GLOBAL_CTRL | EXIT_SAVE_GLOBAL_CTRL | EXIT_SAVE_DEBUG
	controls ENTRY_CONTROLS, IA32_VMX_TRUE_ENTRY_CTLS, ENTRY_GUEST_64 | ENTRY_LOAD_GLOBAL_CTRL | ENTRY_LOAD_DEBUG
.endm

# Enters the guest at `entry`; goes on after a VM exit, with RBP = 0, or after a VM entry that
# failed as an instruction, with RBP = 1. The guest begins with the registers as they are.
.macro enter entry, launch=vmlaunch
	lea \entry(%rip), %rax
	mov $GUEST_RIP, %ebx
	vmwrite %rax, %rbx
	lea 7771f(%rip), %rax
	mov $HOST_RIP, %ebx
	vmwrite %rax, %rbx
	mov $HOST_RSP, %ebx
	vmwrite %rsp, %rbx
	xor %ebp, %ebp
	\launch
	mov $1, %ebp
7771:
.endm
