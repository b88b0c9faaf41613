// SPDX-License-Identifier: GPL-2.0
/*
 * qemu-pt.so: to be preloaded into QEMU, which then gives guests the Intel PT that KVM offers, also where
 * the CPU has less than Ice Lake.  QEMU 11.1 gives guests PT as Ice Lake has it, with MTC and CYC
 * packets, or none (its target/i386/cpu.c, x86_cpu_filter_features()).  So it is told that KVM has
 * that, and the guest what KVM really has.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stddef.h>

#define PROCESSOR_TRACE		0x14
/* CR3 filtering, PSB frequency and CYC, filtering by IP, MTC; ToPA, single range. */
#define ICELAKE_EBX		0xf
#define ICELAKE_ECX		0x7
/* Of subleaf 1: periods of MTC; thresholds of CYC, frequencies of PSB. */
#define ICELAKE_1_EAX		0x02490000
#define ICELAKE_1_EBX		0x003f1fff

typedef int ioctl_function(int fd, unsigned long request, void *argument);

/* What KVM has, in subleaves 0 and 1. */
static struct kvm_cpuid_entry2 offered[2];

static struct kvm_cpuid_entry2 *leaf(struct kvm_cpuid2 *cpuid, unsigned int index)
{
	unsigned int i;

	for (i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function == PROCESSOR_TRACE &&
		    cpuid->entries[i].index == index)
			return &cpuid->entries[i];
	}
	return NULL;
}

static void offer_more(struct kvm_cpuid2 *cpuid)
{
	struct kvm_cpuid_entry2 *zero = leaf(cpuid, 0), *one = leaf(cpuid, 1);

	if (!zero || !one || !zero->eax)
		return;
	offered[0] = *zero;
	offered[1] = *one;
	zero->ebx |= ICELAKE_EBX;
	zero->ecx |= ICELAKE_ECX;
	one->eax |= ICELAKE_1_EAX;
	one->ebx |= ICELAKE_1_EBX;
}

static void give_what_there_is(struct kvm_cpuid2 *cpuid)
{
	unsigned int i;

	for (i = 0; i < 2; i++) {
		struct kvm_cpuid_entry2 *guest = leaf(cpuid, i);

		if (!guest)
			continue;
		guest->eax = offered[i].eax;
		guest->ebx &= offered[i].ebx;
		guest->ecx &= offered[i].ecx;
	}
}

int ioctl(int fd, unsigned long request, ...)
{
	ioctl_function *real = (ioctl_function *)dlsym(RTLD_NEXT, "ioctl");
	void *argument;
	va_list more;
	int result;

	va_start(more, request);
	argument = va_arg(more, void *);
	va_end(more);
	if (request == KVM_SET_CPUID2)
		give_what_there_is(argument);
	result = real(fd, request, argument);
	if (request == KVM_GET_SUPPORTED_CPUID && !result)
		offer_more(argument);
	return result;
}
