// SPDX-License-Identifier: GPL-2.0
/*
 * Each allocation on the way to a vCPU fails once: in the creation of the VM, of its
 * interrupt controller, of the vCPU, and in KVM_SET_CPUID2, from which the vCPU knows of its
 * PMU.  Then there is an error, and nothing is left.  Needs a kernel that can be made to fail
 * (CONFIG_FAULT_INJECTION), see Documentation/fault-injection/fault-injection.rst.
 */
#include <fcntl.h>
#include <unistd.h>

#include "host_events.h"
#include "kvm_test_harness.h"
#include "payload.h"

#define ITERATIONS	1000
#define NR_STEPS	4

static void write_file(const char *path, const char *value)
{
	ssize_t length = strlen(value);
	int fd = open(path, O_WRONLY);

	TEST_ASSERT(fd >= 0 && write(fd, value, length) == length, "Cannot write %s", path);
	close(fd);
}

/* Allocations that may wait fail, too, and those of a page; the log gets nothing of it. */
static void set_up(void)
{
	write_file("/sys/kernel/debug/failslab/ignore-gfp-wait", "N");
	write_file("/sys/kernel/debug/failslab/verbose", "0");
	write_file("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "N");
	write_file("/sys/kernel/debug/fail_page_alloc/ignore-gfp-highmem", "N");
	write_file("/sys/kernel/debug/fail_page_alloc/min-order", "0");
	write_file("/sys/kernel/debug/fail_page_alloc/verbose", "0");
}

/* A line of mvpmu's totals, which there are not with KVM's C code. */
static u64 total(const char *key)
{
	FILE *file = fopen("/sys/kernel/debug/mvpmu/stats", "r");
	size_t length = strlen(key);
	char line[128];
	u64 value = 0;

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, key, length) && line[length] == ':')
			value = strtoull(line + length + 1, NULL, 0);
	fclose(file);
	return value;
}

static void guest_count(void)
{
	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	measure_loop(counter_bit(0), ITERATIONS);
	GUEST_ASSERT_EQ(1 + 2 * ITERATIONS + MEASURE_INSTRUCTIONS, pmc_read(0));
	GUEST_DONE();
}

/*
 * Makes a VM with a vCPU, of which the allocation with this number fails; in @failed[] is which
 * step it was.  Whether there were as many.
 */
static bool create(int fail_nth, int kvm, unsigned int number, unsigned int *failed)
{
	struct kvm_cpuid2 *cpuid = (void *)kvm_get_supported_cpuid();
	int vm, vcpu = -1, result, error = 0;
	unsigned int step = 0;
	char text[16] = "";

	snprintf(text, sizeof(text), "%u", number);
	TEST_ASSERT(pwrite(fail_nth, text, strlen(text), 0) > 0, "Cannot write fail-nth");

	vm = ioctl(kvm, KVM_CREATE_VM, 0ul);
	result = vm;
	if (result >= 0) {
		step++;
		result = ioctl(vm, KVM_CREATE_IRQCHIP);
	}
	if (result >= 0) {
		step++;
		vcpu = ioctl(vm, KVM_CREATE_VCPU, 0ul);
		result = vcpu;
	}
	if (result >= 0) {
		step++;
		result = ioctl(vcpu, KVM_SET_CPUID2, cpuid);
	}
	if (result < 0)
		error = errno;

	memset(text, 0, sizeof(text));
	TEST_ASSERT(pread(fail_nth, text, sizeof(text) - 1, 0) > 0, "Cannot read fail-nth");
	TEST_ASSERT(pwrite(fail_nth, "0", 1, 0) == 1, "Cannot write fail-nth");
	if (result < 0) {
		/* The latter for the APIC access page (VMX): it is of shmem, which says so. */
		TEST_ASSERT(error == ENOMEM || error == ENOSPC,
			    "Allocation %u, step %u: %s", number, step, strerror(error));
		failed[step]++;
	}
	if (vcpu >= 0)
		close(vcpu);
	if (vm >= 0)
		close(vm);
	return atoi(text) == 0;
}

FIXTURE(fail) {
};

FIXTURE_SETUP(fail)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN(fail)
{
}

#define MANY_IN_VAIN	16

TEST_F_TIMEOUT(fail, each_allocation_leaves_nothing, 280)
{
	unsigned int number, in_vain = 0, failed[NR_STEPS] = {};
	struct kvm_vcpu *vcpu;
	int fail_nth, kvm, event;
	struct kvm_vm *vm;

	set_up();
	fail_nth = open("/proc/thread-self/fail-nth", O_RDWR);
	ASSERT_LE(0, fail_nth);
	kvm = open_kvm_dev_path_or_exit();
	/* It is kept: not to be allocated on the way. */
	kvm_get_supported_cpuid();
	/* How many there are varies with what caches hold: the last ones are not in each way. */
	for (number = 1; in_vain < MANY_IN_VAIN; number++) {
		in_vain = create(fail_nth, kvm, number, failed) ? 0 : in_vain + 1;
		ASSERT_EQ(0, total("vms"));
		ASSERT_EQ(0, total("vcpus"));
		/* perf knows of no guest. */
		event = open_event();
		ASSERT_LE(0, event);
		close(event);
	}
	close(kvm);
	close(fail_nth);
	pr_info("%u allocations; of these failed in KVM_CREATE_VM %u, IRQCHIP %u, VCPU %u, SET_CPUID2 %u\n",
		number - 1 - in_vain, failed[0], failed[1], failed[2], failed[3]);
	/* Each step has allocations whose failure is an error. */
	for (number = 0; number < NR_STEPS; number++)
		EXPECT_NE(0, failed[number]);

	vm = pmu_vm_create(&vcpu, guest_count);
	EXPECT_FALSE(run_guest(vcpu, NULL));
	kvm_vm_free(vm);
}

TEST_HARNESS_MAIN
