/* SPDX-License-Identifier: GPL-2.0 */
/*
 * L1 prepares an L2 with a stack that it has.  Up to Linux 7.2 libkvm takes that as an argument.
 */
#ifndef SELFTEST_MVPMU_NESTED_H
#define SELFTEST_MVPMU_NESTED_H

/* libkvm's is another one. */
#define run_guest run_vmcb
#include "svm_util.h"
#undef run_guest
#include "vmx.h"

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

#endif /* SELFTEST_MVPMU_NESTED_H */
