// SPDX-License-Identifier: GPL-2.0
/*
 * qemu-branches.so: to be preloaded into QEMU, which then gives AMD guests the branch stack that KVM
 * offers.  QEMU 11.1 lets guests see of CPUID leaf 8000_0022 what is about counters, and clears the
 * rest (its target/i386/cpu.c, cpu_x86_cpuid()).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PERFORMANCE_MONITORING	0x80000022
#define LBR_EAX			0x6	/* LbrStack, LbrAndPmcFreeze */
#define LBR_EBX			0x3f0	/* LbrStackSize */
#define NR_ENTRIES		256

typedef int ioctl_function(int fd, unsigned long request, void *argument);

static struct kvm_cpuid_entry2 *leaf(struct kvm_cpuid2 *cpuid)
{
	unsigned int i;

	for (i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function == PERFORMANCE_MONITORING)
			return &cpuid->entries[i];
	}
	return NULL;
}

static void add_branches(ioctl_function *real, struct kvm_cpuid2 *cpuid)
{
	struct kvm_cpuid_entry2 *guest = leaf(cpuid);
	struct kvm_cpuid_entry2 *offered;
	struct kvm_cpuid2 *all;
	int kvm;

	if (!guest)
		return;

	all = calloc(1, sizeof(*all) + NR_ENTRIES * sizeof(all->entries[0]));
	kvm = open("/dev/kvm", O_RDWR);
	if (!all || kvm < 0)
		abort();
	all->nent = NR_ENTRIES;
	if (real(kvm, KVM_GET_SUPPORTED_CPUID, all)) {
		perror("qemu-branches: KVM_GET_SUPPORTED_CPUID");
		abort();
	}
	offered = leaf(all);
	if (offered) {
		guest->eax |= offered->eax & LBR_EAX;
		guest->ebx |= offered->ebx & LBR_EBX;
	}
	close(kvm);
	free(all);
}

int ioctl(int fd, unsigned long request, ...)
{
	ioctl_function *real = (ioctl_function *)dlsym(RTLD_NEXT, "ioctl");
	void *argument;
	va_list more;

	va_start(more, request);
	argument = va_arg(more, void *);
	va_end(more);
	if (request == KVM_SET_CPUID2)
		add_branches(real, argument);
	return real(fd, request, argument);
}
