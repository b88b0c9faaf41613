// SPDX-License-Identifier: GPL-2.0
/*
 * Userspace chooses whether a VM has a mediated PMU, an emulated one or none
 * (KVM_CAP_PMU_CAPABILITY); VMs with different ones run side by side.
 */
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "host_events.h"
#include "harness.h"
#include "payload.h"

#define BY_DEFAULT	"/sys/module/kvm/parameters/mediated_pmu_by_default"
#define ITERATIONS	1000
#define NR_EXITS	5

static const struct {
	u64 capability;
	const char *pmu;
} choices[] = {
	{ 0, "mediated" },
	{ KVM_PMU_CAP_DISABLE, "none" },
	{ KVM_PMU_CAP_EMULATED, "emulated" },
	{ KVM_PMU_CAP_MEDIATED, "mediated" },
};

static void write_parameter(const char *value)
{
	int fd = open(BY_DEFAULT, O_WRONLY);

	TEST_ASSERT(fd >= 0 && write(fd, value, 1) == 1, "Cannot write " BY_DEFAULT);
	close(fd);
}

/* What debugfs says of a VM. */
static bool has_pmu(struct kvm_vm *vm, const char *pmu)
{
	char path[64], text[16] = "";
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%d-%d/pmu", getpid(), vm->fd);
	fd = open(path, O_RDONLY);
	TEST_ASSERT(fd >= 0, "Cannot open %s", path);
	n = read(fd, text, sizeof(text) - 1);
	TEST_ASSERT(n > 0 && text[n - 1] == '\n', "Cannot read %s", path);
	close(fd);
	text[n - 1] = 0;
	if (strcmp(text, pmu))
		pr_info("%s: %s, not %s\n", path, text, pmu);
	return !strcmp(text, pmu);
}

static int enable(struct kvm_vm *vm, u64 capability)
{
	return __vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, capability) ? errno : 0;
}

/* 0 or the errno of a VM's first vCPU, which is gone then. */
static int first_vcpu(struct kvm_vm *vm)
{
	int fd = __vm_ioctl(vm, KVM_CREATE_VCPU, (void *)0ul);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static u64 expected(void)
{
	return 1 + 2 * ITERATIONS + MEASURE_INSTRUCTIONS;
}

static void check_exact(void)
{
	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	measure_loop(counter_bit(0), ITERATIONS);
	GUEST_ASSERT_EQ(expected(), pmc_read(0));
}

static void guest_count(void)
{
	unsigned int i;

	for (i = 0; i < 10; i++)
		check_exact();
	GUEST_DONE();
}

/* Once each time it is run. */
static void guest_count_once(void)
{
	for (;;) {
		check_exact();
		GUEST_SYNC(0);
	}
}

static const struct payload payload = PAYLOAD_PIO;

/* With VM exits to userspace while it counts. */
static void guest_count_with_exits(void)
{
	pmu_reset();
	pmc_program(0, BRANCHES, PMC_COUNT, 0);
	payload.measure(counter_bit(0), NR_EXITS);
	GUEST_ASSERT_EQ(payload_count(&payload, BRANCHES, NR_EXITS), rdmsr(counter_msr(0)));
	GUEST_ASSERT_EQ(payload_count(&payload, BRANCHES, NR_EXITS), pmc_read(0));
	GUEST_DONE();
}

static bool stop;

static void guest_count_on(void)
{
	u64 before = 0, now;

	pmu_reset();
	pmc_program(0, BRANCHES, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(0));
	while (!READ_ONCE(stop)) {
		now = pmc_read(0);
		GUEST_ASSERT(now > before);
		before = now;
	}
	GUEST_DONE();
}

FIXTURE(mode) {
	struct kvm_vcpu *vcpu, *other;
	struct kvm_vm *vm, *other_vm;
};

FIXTURE_SETUP(mode)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN(mode)
{
	if (self->vm)
		kvm_vm_free(self->vm);
	if (self->other_vm)
		kvm_vm_free(self->other_vm);
}

TEST_F(mode, kvm_reports_what_there_is)
{
	EXPECT_EQ(KVM_PMU_CAP_DISABLE | KVM_PMU_CAP_EMULATED | KVM_PMU_CAP_MEDIATED,
		  kvm_check_cap(KVM_CAP_PMU_CAPABILITY));
}

TEST_F(mode, vm_has_what_its_userspace_has_chosen)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(choices); i++) {
		vm = vm_create(1);
		EXPECT_EQ(0, enable(vm, choices[i].capability));
		EXPECT_TRUE(has_pmu(vm, choices[i].capability == KVM_PMU_CAP_DISABLE ?
				    "none" : "undecided"));
		vcpu = vm_vcpu_add(vm, 0, guest_count);
		EXPECT_TRUE(has_pmu(vm, choices[i].pmu));
		EXPECT_EQ(!strcmp(choices[i].pmu, "mediated"), vm_get_stat(vm, mediated_pmu));
		EXPECT_EQ(EINVAL, enable(vm, choices[i].capability));
		TEST_ASSERT(vcpu, "There has to be a vCPU");
		kvm_vm_free(vm);
	}
}

TEST_F(mode, the_last_choice_counts)
{
	self->vm = vm_create(1);
	EXPECT_EQ(0, enable(self->vm, KVM_PMU_CAP_DISABLE));
	EXPECT_EQ(0, enable(self->vm, KVM_PMU_CAP_MEDIATED));
	EXPECT_EQ(0, enable(self->vm, KVM_PMU_CAP_EMULATED));
	self->vcpu = vm_vcpu_add(self->vm, 0, guest_count);
	EXPECT_TRUE(has_pmu(self->vm, "emulated"));
}

TEST_F(mode, what_is_no_choice_is_refused)
{
	u64 bit;

	self->vm = vm_create(1);
	EXPECT_EQ(EINVAL, enable(self->vm, KVM_PMU_CAP_DISABLE | KVM_PMU_CAP_EMULATED));
	EXPECT_EQ(EINVAL, enable(self->vm, KVM_PMU_CAP_DISABLE | KVM_PMU_CAP_MEDIATED));
	EXPECT_EQ(EINVAL, enable(self->vm, KVM_PMU_CAP_EMULATED | KVM_PMU_CAP_MEDIATED));
	for (bit = KVM_PMU_CAP_MEDIATED << 1; bit; bit <<= 1)
		EXPECT_EQ(EINVAL, enable(self->vm, bit));
	self->vcpu = vm_vcpu_add(self->vm, 0, guest_count);
	EXPECT_TRUE(has_pmu(self->vm, "mediated"));
}

TEST_F(mode, parameter_is_for_vms_whose_userspace_does_not_choose)
{
	write_parameter("N");
	self->vm = vm_create(1);
	EXPECT_EQ(0, enable(self->vm, KVM_PMU_CAP_MEDIATED));
	EXPECT_EQ(0, enable(self->vm, 0));
	self->other_vm = vm_create(1);
	EXPECT_EQ(0, enable(self->other_vm, KVM_PMU_CAP_MEDIATED));
	write_parameter("Y");
	/* A VM that exists keeps what it has. */
	self->vcpu = vm_vcpu_add(self->vm, 0, guest_count);
	self->other = vm_vcpu_add(self->other_vm, 0, guest_count);
	EXPECT_TRUE(has_pmu(self->vm, "emulated"));
	EXPECT_TRUE(has_pmu(self->other_vm, "mediated"));
}

TEST_F(mode, without_an_apic_in_the_kernel_a_pmu_can_be_emulated)
{
	const struct {
		u64 capability;
		int error;
		const char *pmu;
	} cases[] = {
		{ 0, 0, "none" },
		{ KVM_PMU_CAP_EMULATED, 0, "emulated" },
		{ KVM_PMU_CAP_MEDIATED, EINVAL, "undecided" },
	};
	struct kvm_vm *vm;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		vm = vm_create_barebones();
		EXPECT_EQ(0, enable(vm, cases[i].capability));
		EXPECT_EQ(cases[i].error, first_vcpu(vm));
		EXPECT_TRUE(has_pmu(vm, cases[i].pmu));
		kvm_vm_free(vm);
	}
}

static void *vcpu_thread(void *vcpu)
{
	pin_self_to_cpu(0);
	TEST_ASSERT(!run_guest(vcpu, NULL), "The guest has to end");
	return NULL;
}

static void *sync_thread(void *vcpu)
{
	pin_self_to_cpu(0);
	TEST_ASSERT(run_guest(vcpu, NULL), "The guest has to come to a sync");
	return NULL;
}

/* While the other guest is in userspace, on the CPU where that is. */
static void run_other(struct kvm_vcpu **vcpu, unsigned int nr, void *other)
{
	pthread_t thread;

	TEST_ASSERT(!pthread_create(&thread, NULL, sync_thread, other), "Cannot make a thread");
	pthread_join(thread, NULL);
}

/*
 * Has to fail when perf takes KVM's events for those of somebody who looks into guests.
 * Not on one thread: an event by which KVM emulates counts all guests of a thread.
 */
TEST_F(mode, both_are_exact_in_turns)
{
	pin_self_to_cpu(0);
	self->vm = pmu_vm_create_with(&self->vcpu, guest_count_with_exits, KVM_PMU_CAP_EMULATED);
	self->other_vm = pmu_vm_create_with(&self->other, guest_count_once, KVM_PMU_CAP_MEDIATED);
	EXPECT_FALSE(run_guest_io(&self->vcpu, NULL, run_other, self->other));
}

/* On one CPU, in turns. */
TEST_F(mode, mediated_pmu_is_exact_beside_an_emulated_one)
{
	pthread_t thread, other;

	self->vm = pmu_vm_create_with(&self->vcpu, guest_count_on, KVM_PMU_CAP_EMULATED);
	ASSERT_EQ(0, pthread_create(&thread, NULL, vcpu_thread, self->vcpu));
	self->other_vm = pmu_vm_create_with(&self->other, guest_count, KVM_PMU_CAP_MEDIATED);
	ASSERT_EQ(0, pthread_create(&other, NULL, vcpu_thread, self->other));
	pthread_join(other, NULL);
	WRITE_ONCE(*(bool *)addr_gva2hva(self->vm, (gva_t)&stop), true);
	pthread_join(thread, NULL);
}

/* With host_events=refuse such an event keeps VMs with a mediated PMU from having a vCPU. */
TEST_F(mode, emulated_pmu_counts_beside_an_event_that_counts_in_guests)
{
	int event = open_event();

	ASSERT_LE(0, event);
	self->vm = pmu_vm_create_with(&self->vcpu, guest_count_with_exits, KVM_PMU_CAP_EMULATED);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	if (mode_is("refuse")) {
		self->other_vm = vm_create_barebones();
		vm_create_irqchip(self->other_vm);
		EXPECT_EQ(EBUSY, first_vcpu(self->other_vm));
	}
	close(event);
}

static void open_event_in_between(struct kvm_vcpu **vcpu, unsigned int nr, void *data)
{
	TEST_ASSERT(!open_event_as_nobody(), "An event has to be possible");
}

TEST_F(mode, emulated_pmu_keeps_nobody_from_counting_in_guests)
{
	self->vm = pmu_vm_create_with(&self->vcpu, guest_count_with_exits, KVM_PMU_CAP_EMULATED);
	EXPECT_FALSE(run_guest_io(&self->vcpu, NULL, open_event_in_between, NULL));
}

TEST_HARNESS_MAIN
