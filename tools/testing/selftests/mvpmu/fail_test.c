// SPDX-License-Identifier: GPL-2.0
/*
 * Each allocation on the way to a vCPU fails once: in the creation of the VM, of its
 * interrupt controller, of the vCPU, and in KVM_SET_CPUID2, from which the vCPU knows of its
 * PMU (steps 0 to 3).  Then there is an error, and nothing is left.  Needs a kernel that can
 * be made to fail (CONFIG_FAULT_INJECTION), see
 * Documentation/fault-injection/fault-injection.rst.
 */
#include <fcntl.h>
#include <unistd.h>

#include "host_events.h"
#include "harness.h"
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

static void set_fail_nth(int fail_nth, unsigned int number)
{
	char text[16];
	int length = snprintf(text, sizeof(text), "%u", number);

	TEST_ASSERT(pwrite(fail_nth, text, length, 0) == length, "Cannot write fail-nth");
}

/* Whether an allocation has failed since; the others do not. */
static bool has_failed(int fail_nth)
{
	char text[16] = "";

	TEST_ASSERT(pread(fail_nth, text, sizeof(text) - 1, 0) > 0, "Cannot read fail-nth");
	set_fail_nth(fail_nth, 0);
	return atoi(text) == 0;
}

/*
 * Makes a VM with a vCPU; of the step, its allocation with this number fails.  Whether there were
 * as many; *errors counts the steps that failed for it.
 */
static bool create(int fail_nth, int kvm, unsigned int step, unsigned int number,
		   unsigned int *errors)
{
	struct kvm_cpuid2 *cpuid = (void *)kvm_get_supported_cpuid();
	int vm = -1, vcpu = -1, result = 0, error = 0;
	bool reached = false;
	unsigned int i;

	for (i = 0; i <= step && result >= 0; i++) {
		if (i == step)
			set_fail_nth(fail_nth, number);
		switch (i) {
		case 0:
			vm = ioctl(kvm, KVM_CREATE_VM, 0ul);
			result = vm;
			break;
		case 1:
			result = ioctl(vm, KVM_CREATE_IRQCHIP);
			break;
		case 2:
			vcpu = ioctl(vm, KVM_CREATE_VCPU, 0ul);
			result = vcpu;
			break;
		case 3:
			result = ioctl(vcpu, KVM_SET_CPUID2, cpuid);
			break;
		}
		if (result < 0)
			error = errno;
		if (i == step)
			reached = has_failed(fail_nth);
	}
	if (result < 0) {
		/* The latter for the APIC access page (VMX): it is of shmem, which says so. */
		TEST_ASSERT(reached && (error == ENOMEM || error == ENOSPC),
			    "Allocation %u, step %u of %u: %s", number, i - 1, step,
			    strerror(error));
		++*errors;
	}
	if (vcpu >= 0)
		close(vcpu);
	if (vm >= 0)
		close(vm);
	return reached;
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
	unsigned int step, number, in_vain, errors;
	struct kvm_vcpu *vcpu;
	int fail_nth, kvm, event;
	struct kvm_vm *vm;

	set_up();
	fail_nth = open("/proc/thread-self/fail-nth", O_RDWR);
	ASSERT_LE(0, fail_nth);
	kvm = open_kvm_dev_path_or_exit();
	/* It is kept: not to be allocated on the way. */
	kvm_get_supported_cpuid();
	for (step = 0; step < NR_STEPS; step++) {
		errors = 0;
		in_vain = 0;
		/* How many there are varies with what caches hold. */
		for (number = 1; in_vain < MANY_IN_VAIN; number++) {
			if (create(fail_nth, kvm, step, number, &errors))
				in_vain = 0;
			else
				in_vain++;
			ASSERT_EQ(0, total("vms"));
			ASSERT_EQ(0, total("vcpus"));
			/* perf knows of no guest. */
			event = open_event();
			ASSERT_LE(0, event);
			close(event);
		}
		pr_info("step %u: %u allocations, %u of which make it fail\n",
			step, number - 1 - in_vain, errors);
		/* Each step has some whose failure is an error. */
		EXPECT_LT(0, errors);
	}
	close(kvm);
	close(fail_nth);

	vm = pmu_vm_create(&vcpu, guest_count);
	EXPECT_FALSE(run_guest(vcpu, NULL));
	kvm_vm_free(vm);
}

TEST_HARNESS_MAIN
