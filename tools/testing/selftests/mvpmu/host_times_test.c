// SPDX-License-Identifier: GPL-2.0
/*
 * The times of the host's events while a guest counts on their CPU: 0 <= running
 * <= enabled <= wall time, and neither goes backwards, whatever is done to an
 * event, and whether the guest's state is in hardware meanwhile or not.
 *
 * Times that are wrong by what a guest used are wrong by 2^64 if that is
 * subtracted once too often.
 */
#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"
#include "control_group.h"
#include "payload.h"

#define GUEST_CPU	0
#define TEST_CPU	1
#define NR_EVENTS	4
#define NR_READS	6

/* The guest's. */
static u64 progress;
static u64 stop;

/* In and out of the guest all the time, without a way to userspace. */
static void guest_exit(void)
{
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(0));
	while (!READ_ONCE(stop)) {
		asm volatile("xor %%eax, %%eax\n\tcpuid" : : : "eax", "ebx", "ecx", "edx");
		WRITE_ONCE(progress, progress + 1);
	}
	GUEST_DONE();
}

/* In the guest for as long as the host leaves it alone. */
static void guest_spin(void)
{
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(0));
	while (!READ_ONCE(stop))
		WRITE_ONCE(progress, progress + 1);
	GUEST_DONE();
}

struct vcpu_thread {
	pthread_t thread;
	pid_t tid;
	struct kvm_vcpu *vcpu;
};

static void *run_vcpu(void *data)
{
	struct vcpu_thread *self = data;

	WRITE_ONCE(self->tid, gettid());
	TEST_ASSERT(!run_guest(self->vcpu, NULL), "The guest has to end");
	return NULL;
}

FIXTURE(host_times) {
	struct vcpu_thread guest;
	struct kvm_vm *vm;
	/* In which this process is, if it counts a control group, and somebody outside of it. */
	struct control_group group;
	pid_t neighbour;
	/* An event of this thread that the guest's thread inherits, and its start. */
	int inherited;
	u64 since;
};

/* How the events are made, and what is done to them. */
FIXTURE_VARIANT(host_times) {
	void *guest;
	bool task;
	bool group;
	/* Of a group in which no task is. */
	bool empty;
	bool inherit;
	bool pinned;
	bool grouped;
	bool toggled;
};

#define VARIANT(name, ...)						\
FIXTURE_VARIANT_ADD(host_times, name##_exiting) {			\
	.guest = guest_exit, __VA_ARGS__				\
};									\
FIXTURE_VARIANT_ADD(host_times, name##_spinning) {			\
	.guest = guest_spin, __VA_ARGS__				\
}

VARIANT(of_cpu, .task = false);
VARIANT(of_cpu_pinned, .pinned = true);
VARIANT(of_cpu_grouped, .grouped = true);
VARIANT(of_cpu_toggled, .toggled = true);
VARIANT(of_task, .task = true);
VARIANT(of_task_pinned, .task = true, .pinned = true);
VARIANT(of_task_toggled, .task = true, .toggled = true);
VARIANT(of_control_group, .group = true);
VARIANT(of_control_group_pinned, .group = true, .pinned = true);
VARIANT(of_control_group_toggled, .group = true, .toggled = true);
/* Has to fail when a context whose events cannot run is taken for one that is scheduled in. */
VARIANT(of_empty_control_group, .group = true, .empty = true);
VARIANT(inherited, .inherit = true);

static int open_event(const FIXTURE_VARIANT(host_times) *variant, pid_t pid, int cpu, int leader)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.size = sizeof(attr),
		.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING,
		.pinned = variant->pinned && leader < 0,
		.inherit = variant->inherit,
		.exclude_guest = 1,
	};
	int fd = syscall(SYS_perf_event_open, &attr, pid, cpu, leader,
			 variant->group ? PERF_FLAG_PID_CGROUP : 0);

	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("perf_event_open", fd));
	return fd;
}

/* Whenever it runs, it leaves the CPU again: the guest's thread is switched out and in. */
static pid_t start_neighbour(void)
{
	pid_t pid = fork();

	TEST_ASSERT(pid >= 0, "fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin_self_to_cpu(GUEST_CPU);
	for (;;)
		sched_yield();
}

static u64 wall_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_RAW, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void wait_for_guest(struct kvm_vm *vm)
{
	u64 *at = addr_gva2hva(vm, (gva_t)&progress);
	u64 seen = READ_ONCE(*at);

	while (READ_ONCE(*at) - seen < 2)
		sched_yield();
}

FIXTURE_SETUP(host_times)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "one CPU");

	if (variant->group) {
		if (!control_group_create(&self->group, TO_COUNT))
			SKIP(return, "no control groups");
		self->neighbour = start_neighbour();
		if (!variant->empty)
			control_group_enter(&self->group);
	}
	pin_self_to_cpu(TEST_CPU);
	self->vm = pmu_vm_create(&self->guest.vcpu, variant->guest);
	self->since = wall_ns();
	if (variant->inherit)
		self->inherited = open_event(variant, 0, -1, -1);
	TEST_ASSERT_EQ(pthread_create(&self->guest.thread, NULL, run_vcpu, &self->guest), 0);
	pin_task_to_cpu(self->guest.thread, GUEST_CPU);
	wait_for_guest(self->vm);
}

FIXTURE_TEARDOWN(host_times)
{
	*(u64 *)addr_gva2hva(self->vm, (gva_t)&stop) = 1;
	pthread_join(self->guest.thread, NULL);
	if (variant->inherit)
		close(self->inherited);
	kvm_vm_free(self->vm);
	if (variant->group) {
		control_group_destroy(&self->group);
		kill(self->neighbour, SIGKILL);
	}
}

struct times {
	u64 value, enabled, running;
};

/* Reads an event of @nr_tasks tasks, which is there since @since. */
static struct times check_times(int fd, struct times before, u64 since, unsigned int nr_tasks)
{
	struct times now;

	TEST_ASSERT_EQ(read(fd, &now, sizeof(now)), sizeof(now));
	since = (wall_ns() - since) * nr_tasks;
	TEST_ASSERT(before.enabled <= now.enabled && before.running <= now.running,
		    "enabled %lu then %lu, running %lu then %lu",
		    before.enabled, now.enabled, before.running, now.running);
	TEST_ASSERT(now.running <= now.enabled && now.enabled <= since,
		    "running %lu, enabled %lu, wall %lu", now.running, now.enabled, since);
	return now;
}

/*
 * Has to fail when a context's guest time does not start with the context (the
 * first event of a CPU and of a task), and when whoever reads an event goes by the
 * guest on its own CPU (spinning guests).
 */
TEST_F(host_times, are_those_of_the_host)
{
	int group = variant->group ? control_group_open(&self->group) : -1;
	pid_t pid = variant->task ? READ_ONCE(self->guest.tid) : group;
	int cpu = variant->task ? -1 : GUEST_CPU;
	unsigned int i, j, k, nr = variant->grouped ? 3 : 1;
	struct times of_threads = {};
	u64 since;

	for (i = 0; i < NR_EVENTS; i++) {
		struct times times[3] = {};
		int fds[3];

		since = wall_ns();
		for (k = 0; k < nr; k++)
			fds[k] = open_event(variant, pid, cpu, k ? fds[0] : -1);

		for (j = 0; j < NR_READS; j++) {
			if (variant->toggled)
				ioctl(fds[0], j & 1 ? PERF_EVENT_IOC_ENABLE :
						      PERF_EVENT_IOC_DISABLE, 0);
			for (k = 0; k < nr; k++)
				times[k] = check_times(fds[k], times[k], since, 1);
			if (variant->inherit)
				of_threads = check_times(self->inherited, of_threads, self->since, 2);
		}
		for (k = 0; k < nr; k++)
			close(fds[k]);
		wait_for_guest(self->vm);
	}
	if (variant->group)
		close(group);
}

TEST_HARNESS_MAIN
