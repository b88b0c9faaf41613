// SPDX-License-Identifier: GPL-2.0
/*
 * A guest that counts is stopped from outside: its CPU goes away and comes back,
 * its thread is frozen by a control group, or everything is by a suspend. The
 * guest does not notice, and neither the host nor anybody on the CPU finds anything
 * of it.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"
#include "attack.h"
#include "control_group.h"
#include "payload.h"

#define CPU		1
#define ONLINE		"/sys/devices/system/cpu/cpu1/online"
#define NR_TURNS	5
#define ROUNDS		100
#define HOST_LOOPS	1000

/* The guest's. */
static u64 iterations;
static u64 stop;

/* In the guest for as long as the host leaves it alone. */
static void measure_spin(u64 enable)
{
	MEASURE(enable,
		"1: incq %[iterations]\n\t"
		"cmpq $0, %[stop]\n\t"
		"je 1b",
		[iterations]"m"(iterations), [stop]"m"(stop));
}

/* In and out of the guest all the time, without a way to userspace. */
static void measure_exits(u64 enable)
{
	MEASURE(enable,
		"1: incq %[iterations]\n\t"
		"xor %%eax, %%eax\n\t"
		"cpuid\n\t"
		"cmpq $0, %[stop]\n\t"
		"je 1b",
		[iterations]"m"(iterations), [stop]"m"(stop));
}

static u64 secret(unsigned int pmc)
{
	return SECRET(pmc);
}

/* All counters count, each from a secret on. */
static void guest_count(bool exits)
{
	u64 enable, expected;
	unsigned int pmc;

	pmu_reset();
	enable = pmc_program_all(INSTRUCTIONS, secret);
	if (exits)
		measure_exits(enable);
	else
		measure_spin(enable);

	expected = iterations * (exits ? 5 : 3) + MEASURE_INSTRUCTIONS;
	for (pmc = 0; pmc < nr_counters(); pmc++) {
		u64 counted = pmc_read(pmc) - (enable & counter_bit(pmc) ? secret(pmc) : 0);

		__GUEST_ASSERT(counted == (enable & counter_bit(pmc) ? expected : 0),
			       "counter %u: expected %lu, counted %lu", pmc, expected, counted);
	}
	GUEST_DONE();
}

/* The thread of the vCPU. */
static pid_t tid;

static void *vcpu_thread(void *vcpu)
{
	WRITE_ONCE(tid, gettid());
	TEST_ASSERT(!run_guest(vcpu, NULL), "The guest has to end");
	return NULL;
}

/* The thread is on the CPU then, and may leave it. */
static void move_to_cpu(pthread_t thread)
{
	cpu_set_t set;

	pin_task_to_cpu(thread, CPU);
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	CPU_SET(CPU, &set);
	TEST_ASSERT_EQ(pthread_setaffinity_np(thread, sizeof(set), &set), 0);
}

static void set_online(bool online)
{
	write_to(ONLINE, online ? "1" : "0");
	TEST_ASSERT_EQ(sysconf(_SC_NPROCESSORS_ONLN), 1 + online);
}

/* Returns once the guest has run. */
static void wait_for_guest(struct kvm_vm *vm)
{
	u64 *progress = addr_gva2hva(vm, (gva_t)&iterations);
	u64 seen = READ_ONCE(*progress);

	while (READ_ONCE(*progress) - seen < 2)
		sched_yield();
}

/* A host loop of 2 * @n + 1 instructions. */
static noinline void host_loop(u64 n)
{
	asm volatile("mov %[n], %%rcx\n"
		     "1: dec %%rcx\n\t"
		     "jnz 1b" : : [n]"r"(n) : "rcx", "cc");
}

/*
 * What a new event on @cpu, where the caller is, counts of a loop in user mode; of this thread:
 * after a suspend, others that slept in a system call begin it anew.
 */
static noinline u64 count_loop(int cpu)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.size = sizeof(attr),
		.pinned = 1,
		.exclude_guest = 1,
		.exclude_kernel = 1,
		.exclude_hv = 1,
	};
	u64 count;
	int fd;

	fd = syscall(SYS_perf_event_open, &attr, 0, cpu, -1, 0);
	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("perf_event_open", fd));
	host_loop(HOST_LOOPS);
	TEST_ASSERT_EQ(read(fd, &count, sizeof(count)), sizeof(count));
	close(fd);
	return count;
}

FIXTURE(hotplug) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	pthread_t thread;
	u64 expected;		/* of count_loop() */
	struct attack attack;
};

FIXTURE_VARIANT(hotplug) {
	bool exits;
};

FIXTURE_VARIANT_ADD(hotplug, guest_that_stays_in_guest_mode) {
	.exits = false,
};

FIXTURE_VARIANT_ADD(hotplug, guest_that_exits_to_the_kernel) {
	.exits = true,
};

FIXTURE_SETUP(hotplug)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2 || access(ONLINE, W_OK))
		SKIP(return, "needs two CPUs");

	self->vm = pmu_vm_create(&self->vcpu, guest_count);
	vcpu_args_set(self->vcpu, 1, variant->exits);
}

FIXTURE_TEARDOWN(hotplug)
{
	kvm_vm_free(self->vm);
}

static void start(struct kvm_vm *vm, struct kvm_vcpu *vcpu, pthread_t *thread)
{
	pin_self_to_cpu(0);
	TEST_ASSERT_EQ(pthread_create(thread, NULL, vcpu_thread, vcpu), 0);
	move_to_cpu(*thread);
	wait_for_guest(vm);
}

/* The guest checks its counts. */
static void stop_guest(struct kvm_vm *vm, pthread_t thread)
{
	WRITE_ONCE(*(u64 *)addr_gva2hva(vm, (gva_t)&stop), 1);
	pthread_join(thread, NULL);
}

/*
 * What count_loop() counts when nothing disturbs it, in a process with another thread:
 * the C library's way is longer then.
 */
static u64 count_undisturbed(void)
{
	u64 expected;

	/* The first time binds symbols. */
	count_loop(0);
	expected = count_loop(0);
	TEST_ASSERT(expected > 2 * HOST_LOOPS, "An event counts %lu", expected);
	return expected;
}

/* On the CPU where the guest was, an event counts what it has to, and RDPMC reads nothing. */
static void check_cpu(struct attack *attack, u64 expected)
{
	struct rdpmc_reader reader;
	unsigned int i;

	pin_self_to_cpu(CPU);
	TEST_ASSERT_EQ(count_loop(CPU), expected);
	reader_open(&reader, attack, OWN_EVENT);
	for (i = 0; i < reader.nr; i++)
		if (is_secret(reader.before[i]))
			attack_leak(attack, reader.index[i], reader.before[i]);
	reader_read(&reader, ROUNDS);
	reader_close(&reader);
	pin_self_to_cpu(0);
	TEST_ASSERT(!attack->leaks, "0x%lx in 0x%lx", attack->value, attack->place);
}

TEST_F(hotplug, guest_counts_on_and_the_cpu_comes_back_clean)
{
	unsigned int turn;

	start(self->vm, self->vcpu, &self->thread);
	self->expected = count_undisturbed();
	for (turn = 0; turn < NR_TURNS; turn++) {
		move_to_cpu(self->thread);
		wait_for_guest(self->vm);
		set_online(false);
		wait_for_guest(self->vm);
		set_online(true);

		/* Nobody has used the PMU of that CPU since it came back. */
		check_cpu(&self->attack, self->expected);
	}
	stop_guest(self->vm, self->thread);
}

TEST_F(hotplug, frozen_guest_leaves_nothing_and_counts_on)
{
	struct control_group group;
	unsigned int turn;

	if (!control_group_create(&group, TO_FREEZE))
		SKIP(return, "no control groups");
	start(self->vm, self->vcpu, &self->thread);
	self->expected = count_undisturbed();
	control_group_enter(&group);
	control_group_add_thread(&group, READ_ONCE(tid));
	for (turn = 0; turn < NR_TURNS; turn++) {
		move_to_cpu(self->thread);
		wait_for_guest(self->vm);
		control_group_freeze(&group, true);
		check_cpu(&self->attack, self->expected);
		control_group_freeze(&group, false);
		wait_for_guest(self->vm);
	}
	stop_guest(self->vm, self->thread);
	control_group_destroy(&group);
}

/* As far as it can go without a power button to wake the machine up again. */
static void suspend(const char *state, const char *to)
{
	write_to("/sys/power/pm_test", to);
	write_to("/sys/power/state", state);
	write_to("/sys/power/pm_test", "none");
}

/* Whether the machine has a state of its own for that: without ACPI it has not. */
static bool can_suspend_to_memory(void)
{
	char states[64] = "";
	int fd = open("/sys/power/mem_sleep", O_RDONLY);

	TEST_ASSERT(fd >= 0 && read(fd, states, sizeof(states) - 1) > 0,
		    "Cannot read /sys/power/mem_sleep");
	close(fd);
	return strstr(states, "deep");
}

/*
 * To idle: all tasks are frozen. To memory, each second time where it can be done: all CPUs but the
 * first one are off then, and that has put its devices aside.
 */
TEST_F(hotplug, guest_counts_on_after_a_suspend)
{
	unsigned int turn;
	bool to_memory;

	if (access("/sys/power/pm_test", W_OK))
		SKIP(return, "no suspend");
	to_memory = can_suspend_to_memory();
	write_to("/sys/module/suspend/parameters/pm_test_delay", "0");
	start(self->vm, self->vcpu, &self->thread);
	self->expected = count_undisturbed();
	for (turn = 0; turn < NR_TURNS; turn++) {
		move_to_cpu(self->thread);
		wait_for_guest(self->vm);
		if (to_memory && turn & 1)
			suspend("mem", "core");
		else
			suspend("freeze", "platform");
		pin_task_to_cpu(self->thread, 0);
		check_cpu(&self->attack, self->expected);
		wait_for_guest(self->vm);
	}
	stop_guest(self->vm, self->thread);
}

TEST_HARNESS_MAIN
