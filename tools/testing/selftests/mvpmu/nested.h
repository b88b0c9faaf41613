/* SPDX-License-Identifier: GPL-2.0 */
/*
 * An L1 that runs an L2 with counters on.
 */
#ifndef SELFTEST_MVPMU_NESTED_H
#define SELFTEST_MVPMU_NESTED_H

#include "payload.h"

/* libkvm's is another one. */
#define run_guest run_vmcb
#include "svm_util.h"
#undef run_guest
#include "vmx.h"

/* L1 has a stack for L2.  Up to Linux 7.2 libkvm takes it as an argument. */
static inline void nested_svm_setup(struct svm_test_data *svm, void *code, void *stack)
{
#ifdef LIBKVM_TAKES_STACK
	generic_svm_setup(svm, code, stack);
#else
	svm->stack = stack;
	generic_svm_setup(svm, code);
#endif
}

static inline void nested_vmx_setup(struct vmx_pages *vmx, void *code, void *stack)
{
#ifdef LIBKVM_TAKES_STACK
	prepare_vmcs(vmx, code, stack);
#else
	vmx->stack = stack;
	prepare_vmcs(vmx, code);
#endif
}

#define L2_STACK	1024

static u64 l2_stack[L2_STACK];
static struct svm_test_data *svm;
static struct vmx_pages *vmx;
static bool launched;

/* Host: whether guests may have guests. */
static inline bool has_nested(void)
{
	return kvm_cpu_has(host_cpu_is_intel ? X86_FEATURE_VMX : X86_FEATURE_SVM);
}

/* Host: what L1 needs. */
static inline void nested_alloc(struct kvm_vm *vm)
{
	gva_t data;

	if (host_cpu_is_intel) {
		vcpu_alloc_vmx(vm, &data);
		vmx = (void *)data;
		sync_global_to_guest(vm, vmx);
	} else {
		vcpu_alloc_svm(vm, &data);
		svm = (void *)data;
		sync_global_to_guest(vm, svm);
	}
}

/*
 * As MEASURE(), for what @enter enters; r8 is @n then.  L2 preserves what a C
 * function does.
 */
#define MEASURE_L2(enable, n, before, enter, ...)				\
do {										\
	u64 __enable = (enable);						\
										\
	asm volatile(before "mov %[n], %%r8\n\t"				\
		     "wrmsr\n\t"						\
		     enter							\
		     "mov %[global_control], %%ecx\n\t"				\
		     "xor %%eax, %%eax\n\t"					\
		     "xor %%edx, %%edx\n\t"					\
		     "wrmsr"							\
		     : "+a"((u32){__enable}),					\
		       "+d"((u32){__enable >> 32}),				\
		       "+c"((u32){vendor->global_control})			\
		     : [global_control]"m"(vendor->global_control),		\
		       [n]"m"(n), ##__VA_ARGS__					\
		     : "rbx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc",	\
		       "memory");						\
} while (0)

static inline void measure_svm(u64 enable, u64 n)
{
	MEASURE_L2(enable, n, "",
		   "mov %[vmcb], %%rax\n\t"
		   "vmrun %%rax\n\t", [vmcb]"m"(svm->vmcb_gpa));
}

/* VM exit goes to label 2. */
#define MEASURE_VMX(enable, n, enter)						\
	MEASURE_L2(enable, n,							\
		   "vmwrite %%rsp, %[host_rsp]\n\t"				\
		   "lea 2f(%%rip), %%rbx\n\t"					\
		   "vmwrite %%rbx, %[host_rip]\n\t",				\
		   enter "\n"							\
		   "2:\t",							\
		   [host_rsp]"r"((u64)HOST_RSP), [host_rip]"r"((u64)HOST_RIP))

static inline void measure_vmx(u64 enable, u64 n)
{
	if (launched) {
		MEASURE_VMX(enable, n, "vmresume");
	} else {
		launched = true;
		MEASURE_VMX(enable, n, "vmlaunch");
	}
	GUEST_ASSERT_EQ(EXIT_REASON_VMCALL, vmreadz(VM_EXIT_REASON));
}

/* L1: prepares an L2 that starts at @code; L1 intercepts none of the PMU's registers. */
static inline void prepare_l2(void *code)
{
	void *stack = &l2_stack[L2_STACK];

	if (!host_cpu_is_intel) {
		nested_svm_setup(svm, code, stack);
		return;
	}
	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_ASSERT(load_vmcs(vmx));
	nested_vmx_setup(vmx, code, stack);
	vmwrite(CPU_BASED_VM_EXEC_CONTROL,
		vmreadz(CPU_BASED_VM_EXEC_CONTROL) | CPU_BASED_USE_MSR_BITMAPS);
}

/* L1: enters L2 with GLOBAL_CTRL = @enable, and @n in r8; 0 afterwards. */
static inline void run_l2(u64 enable, u64 n)
{
	if (host_cpu_is_intel)
		measure_vmx(enable, n);
	else
		measure_svm(enable, n);
}

#endif /* SELFTEST_MVPMU_NESTED_H */
