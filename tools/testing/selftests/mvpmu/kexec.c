// SPDX-License-Identifier: GPL-2.0
/*
 * kexec KERNEL INITRD COMMAND_LINE: starts another kernel while a guest that counts is
 * in hardware on CPU 1. It finds what the guest was left with, on a CPU that nobody has
 * put anything in order on.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/reboot.h>

#include "attack.h"

#define CPU	1

/* The guest's. */
static u64 progress;

/* In and out of the guest all the time, without a way to userspace. */
static void guest_code(void)
{
	unsigned int pmc;
	u64 enable = 0;

	pmu_reset();
	for (pmc = 0; pmc < nr_counters(); pmc++) {
		pmc_program(pmc, INSTRUCTIONS, PMC_USR | PMC_COUNT, SECRET(pmc));
		enable |= counter_bit(pmc);
	}
	wrmsr(vendor->global_control, enable);
	for (;;) {
		asm volatile("xor %%eax, %%eax\n\tcpuid" : : : "eax", "ebx", "ecx", "edx");
		WRITE_ONCE(progress, progress + 1);
	}
}

static void *run_vcpu(void *vcpu)
{
	run_guest(vcpu, NULL);
	TEST_FAIL("The guest has no end");
	return NULL;
}

static int open_file(const char *path)
{
	int fd = open(path, O_RDONLY);

	TEST_ASSERT(fd >= 0, "Cannot open %s", path);
	return fd;
}

int main(int argc, char **argv)
{
	struct kvm_vcpu *vcpu;
	const char *missing;
	struct kvm_vm *vm;
	pthread_t thread;
	long error;
	u64 *at;

	TEST_ASSERT(argc == 4, "kexec KERNEL INITRD COMMAND_LINE");
	missing = pmu_missing();
	__TEST_REQUIRE(!missing, "%s", missing);

	error = syscall(SYS_kexec_file_load, open_file(argv[1]), open_file(argv[2]),
			strlen(argv[3]) + 1, argv[3], 0);
	TEST_ASSERT(!error, __KVM_SYSCALL_ERROR("kexec_file_load", (int)error));

	pin_self_to_cpu(0);
	vm = pmu_vm_create(&vcpu, guest_code);
	TEST_ASSERT_EQ(pthread_create(&thread, NULL, run_vcpu, vcpu), 0);
	pin_task_to_cpu(thread, CPU);
	at = addr_gva2hva(vm, (gva_t)&progress);
	while (READ_ONCE(*at) < 1000)
		sched_yield();
	TEST_ASSERT(pmu_loads(vcpu), "The guest's state is not in hardware");

	reboot(LINUX_REBOOT_CMD_KEXEC);
	TEST_FAIL("There is no other kernel");
	return EXIT_FAILURE;
}
