// SPDX-License-Identifier: GPL-2.0
/*
 * Events of the host that count in guests, too, and guests that count: one at a
 * time.  With mvpmu's host_events=refuse, and with KVM's C code, a VM with a PMU
 * has it for all of its life; with host_events=share whoever comes first has it,
 * and a guest that comes second waits.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/perf_event.h>

#include "kvm_test_harness.h"
#include "payload.h"

#define MVPMU		"/sys/kernel/debug/mvpmu"
#define HOST_EVENTS	"/sys/module/mvpmu/parameters/host_events"
#define NOBODY		65534
#define ITERATIONS	1000

/* An event of this process in user mode, which counts in guests, too; or -errno. */
static int open_event(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.size = sizeof(attr),
		.exclude_kernel = 1,
		.exclude_hv = 1,
	};
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);

	return fd < 0 ? -errno : fd;
}

/* The same by a user who may do nothing; 0 or the errno. */
static int open_event_as_nobody(void)
{
	int status, fd;
	pid_t pid;

	pid = fork();
	TEST_ASSERT(pid >= 0, __KVM_SYSCALL_ERROR("fork", pid));
	if (!pid) {
		if (setresuid(NOBODY, NOBODY, NOBODY))
			_exit(255);
		fd = open_event();
		_exit(fd < 0 ? -fd : 0);
	}
	TEST_ASSERT(waitpid(pid, &status, 0) == pid && WIFEXITED(status),
		    "The child has to end");
	return WEXITSTATUS(status);
}

static bool shares(void)
{
	char value[16] = "";
	int fd = open(HOST_EVENTS, O_RDONLY);

	if (fd < 0)
		return false;
	TEST_ASSERT(read(fd, value, sizeof(value) - 1) > 0, "Cannot read " HOST_EVENTS);
	close(fd);
	return !strcmp(value, "share\n");
}

/* Whether debugfs says that the vCPU of this process's only VM waits. */
static bool waits(void)
{
	char prefix[32], path[320], text[4096];
	struct dirent *entry;
	DIR *dir;
	int fd, n;

	path[0] = 0;
	snprintf(prefix, sizeof(prefix), "%d-", getpid());
	dir = opendir(MVPMU);
	TEST_ASSERT(dir, "Cannot open " MVPMU);
	while ((entry = readdir(dir)))
		if (!strncmp(entry->d_name, prefix, strlen(prefix)))
			snprintf(path, sizeof(path), MVPMU "/%s/vcpu0", entry->d_name);
	closedir(dir);

	fd = open(path, O_RDONLY);
	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR(path, fd));
	n = read(fd, text, sizeof(text) - 1);
	TEST_ASSERT(n >= 0, __KVM_SYSCALL_ERROR(path, n));
	text[n] = 0;
	close(fd);
	TEST_ASSERT(strstr(text, "\nwaiting: "), "%s has no line \"waiting\"", path);
	return strstr(text, "\nwaiting: 1\n");
}

static u64 expected(void)
{
	return 1 + 2 * ITERATIONS + MEASURE_INSTRUCTIONS;
}

static void guest_count(void)
{
	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	measure_loop(counter_bit(0), ITERATIONS);
	GUEST_ASSERT_EQ(expected(), pmc_read(0));
	GUEST_DONE();
}

/*
 * Does nothing for the counter but to look at it.  It counts branches, of which
 * KVM emulates none: emulated instructions are counted all the time.
 */
static void guest_wait(void)
{
	pmu_reset();
	pmc_program(0, BRANCHES, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(0));
	while (!rdmsr(counter_msr(0)))
		;
	wrmsr(vendor->global_control, 0);

	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	measure_loop(counter_bit(0), ITERATIONS);
	GUEST_ASSERT_EQ(expected(), pmc_read(0));
	GUEST_DONE();
}

FIXTURE(host_events) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(host_events)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN(host_events)
{
	if (self->vm)
		kvm_vm_free(self->vm);
}

/* Has to fail when perf knows only of vCPUs that count. */
TEST_F(host_events, cannot_be_opened_while_a_vm_exists)
{
	if (shares())
		SKIP(return, "host_events=share");

	EXPECT_EQ(0, open_event_as_nobody());
	self->vm = pmu_vm_create(&self->vcpu, guest_count);
	EXPECT_EQ(EOPNOTSUPP, open_event_as_nobody());
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	EXPECT_EQ(EOPNOTSUPP, open_event_as_nobody());

	kvm_vm_free(self->vm);
	self->vm = NULL;
	EXPECT_EQ(0, open_event_as_nobody());
}

/* Has to fail when perf knows only of vCPUs that count. */
TEST_F(host_events, keep_a_vm_from_its_first_vcpu)
{
	int event, vcpu;

	if (shares())
		SKIP(return, "host_events=share");

	event = open_event();
	ASSERT_GE(event, 0);
	self->vm = vm_create_barebones();
	vm_create_irqchip(self->vm);
	EXPECT_EQ(-1, __vm_ioctl(self->vm, KVM_CREATE_VCPU, (void *)0ul));
	EXPECT_EQ(EBUSY, errno);

	close(event);
	vcpu = __vm_ioctl(self->vm, KVM_CREATE_VCPU, (void *)0ul);
	EXPECT_LE(0, vcpu);
	close(vcpu);
}

/* Has to fail when perf knows of the VM for all of its life. */
TEST_F(host_events, can_be_opened_while_no_guest_counts)
{
	if (!shares())
		SKIP(return, "host_events=refuse");

	self->vm = pmu_vm_create(&self->vcpu, guest_count);
	EXPECT_EQ(0, open_event_as_nobody());
	EXPECT_FALSE(waits());
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	EXPECT_EQ(EOPNOTSUPP, open_event_as_nobody());
}

static void *vcpu_thread(void *vcpu)
{
	TEST_ASSERT(!run_guest(vcpu, NULL), "The guest has to end");
	return NULL;
}

/* Has to hang when KVM does not ask perf again. */
TEST_F(host_events, let_a_guest_wait_which_goes_on_when_they_are_closed)
{
	pthread_t thread;
	int event;

	if (!shares())
		SKIP(return, "host_events=refuse");

	event = open_event();
	ASSERT_GE(event, 0);
	self->vm = pmu_vm_create(&self->vcpu, guest_wait);
	ASSERT_EQ(0, pthread_create(&thread, NULL, vcpu_thread, self->vcpu));
	while (!waits())
		sched_yield();

	close(event);
	pthread_join(thread, NULL);
	EXPECT_FALSE(waits());
}

TEST_HARNESS_MAIN
