// SPDX-License-Identifier: GPL-2.0
/*
 * Events of the host are exact, whatever guests do: what they count is what the
 * test machine, which sees each instruction, counts beside its PMU.
 *
 * A process maps its event and reads it with RDPMC, between two CPUIDs that tell
 * what the machine has counted, so that there is nothing in between.  That host
 * events count nothing for the guest, and the guest nothing of theirs, is part of
 * the equation; the guest checks its own counts, too.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"
#include "attack.h"
#include "machine.h"
#include "payload.h"

#define NR_RUNS		20
#define NR_EXITS	50
#define NR_LOOPS	20000
#define NR_SYSCALLS	1000
#define MAX_OTHERS	16
#define NR_FRESH_PAGES	200
#define BRANCHES_ON_THE_WAY	20

/* Which instructions of the host the event counts, of whatever task on CPU 0. */
enum mode { USER, USER_AND_KERNEL };

struct event {
	int fd;
	enum mode mode;
	struct perf_event_mmap_page *page;
};

static int open_event(enum mode mode, bool pinned)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.size = sizeof(attr),
		.pinned = pinned,
		.exclude_guest = 1,
		.exclude_kernel = mode == USER,
		.exclude_hv = 1,
	};
	int fd = syscall(SYS_perf_event_open, &attr, -1, 0, -1, 0);

	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("perf_event_open", fd));
	return fd;
}

static void event_open(struct event *event, enum mode mode)
{
	event->mode = mode;
	event->fd = open_event(mode, true);
	event->page = mmap(NULL, getpagesize(), PROT_READ, MAP_SHARED, event->fd, 0);
	TEST_ASSERT(event->page != MAP_FAILED, "mmap() of an event failed");
	TEST_ASSERT(event->page->cap_user_rdpmc, "perf does not allow RDPMC");
}

static void event_close(struct event *event)
{
	munmap(event->page, getpagesize());
	close(event->fd);
}

/* At one moment. */
struct counts {
	u64 kernel;
	u64 user;
	u64 exits;
	u64 event;
};

/*
 * As the kernel's documentation of the page says.  When nothing has happened in
 * the kernel from the first CPUID to the last, each instruction between them is one
 * of this function, and always the same.
 */
static noinline struct counts look_at(const struct event *event)
{
	const volatile struct perf_event_mmap_page *page = event->page;
	struct counts counts;
	u64 kernel;
	u32 index;
	s64 pmc;

	do {
		counts.kernel = machine_count(MACHINE_KERNEL_INSTRUCTIONS);
		index = page->index;
		TEST_ASSERT(index, "The event has no counter");
		counts.exits = machine_count(MACHINE_EXITS);
		counts.user = machine_count(MACHINE_USER_INSTRUCTIONS);
		pmc = rdpmc(index - 1) << (64 - page->pmc_width);
		counts.event = page->offset + (pmc >> (64 - page->pmc_width));
		kernel = machine_count(MACHINE_KERNEL_INSTRUCTIONS);
	} while (kernel != counts.kernel);
	return counts;
}

/* How many instructions of its kind the event has missed. */
static s64 missed(const struct event *event, const struct counts *from, const struct counts *to)
{
	u64 executed = to->user - from->user;

	if (event->mode == USER_AND_KERNEL)
		executed += to->kernel - from->kernel;
	return executed - (to->event - from->event);
}

/* The guests */

static const struct payload payloads[] = {
	PAYLOAD_LOOP, PAYLOAD_CPUID, PAYLOAD_PIO, PAYLOAD_MMIO,
};

/* Each payload in turn, with all counters. */
static void guest_count(void)
{
	u64 enable, loops;
	unsigned int i;

	for (;;) {
		for (i = 0; i < ARRAY_SIZE(payloads); i++) {
			pmu_reset();
			enable = pmc_program_all(INSTRUCTIONS, NULL);
			loops = i ? NR_EXITS : NR_LOOPS;
			payloads[i].measure(enable, loops);
			pmc_check_all(enable, NULL,
				      payload_count(&payloads[i], INSTRUCTIONS, loops));
		}
		GUEST_SYNC(0);
	}
}

/* What causes an exit that the kernel handles; each takes a different time. */
enum cause { NOTHING, EMULATED_CPUID, EMULATED_RDMSR, FRESH_PAGE, NR_CAUSES };

static const char * const causes[] = {
	"nothing", "CPUID", "RDMSR of a selector", "a fresh page",
};

#define FRESH_GPA	(1ull << 32)
#define FRESH_GVA	(1ull << 32)

static enum cause cause;

/* One exit at a time, and one to userspace. */
static void guest_exit(bool counts)
{
	u64 page = FRESH_GVA;

	if (counts) {
		wrmsr(selector_msr(0), vendor->event[INSTRUCTIONS] | PMC_COUNT);
		wrmsr(vendor->global_control, counter_bit(0));
	}
	for (;;) {
		turn_over();
		switch (READ_ONCE(cause)) {
		case EMULATED_CPUID:
			asm volatile("cpuid" : : "a"(0), "c"(0) : "rbx", "rdx");
			break;
		case EMULATED_RDMSR:
			rdmsr(selector_msr(0));
			break;
		case FRESH_PAGE:
			WRITE_ONCE(*(u8 *)page, 1);
			page += PAGE_SIZE;
			break;
		default:
			break;
		}
	}
}

FIXTURE(host_exact) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	struct event event;
	int others[MAX_OTHERS];
	unsigned int nr_others;
};

FIXTURE_VARIANT(host_exact) {
	enum mode mode;
	/* More events of the same kind than there are counters. */
	bool others;
};

FIXTURE_VARIANT_ADD(host_exact, user) {
	.mode = USER,
};

FIXTURE_VARIANT_ADD(host_exact, user_with_others_in_turns) {
	.mode = USER,
	.others = true,
};

FIXTURE_VARIANT_ADD(host_exact, user_and_kernel) {
	.mode = USER_AND_KERNEL,
};

static const char *something_missing(void)
{
	u64 count;

	if (!machine_read(MACHINE_USER_INSTRUCTIONS, &count))
		return "only test machines count beside their PMU";
	return pmu_missing();
}

FIXTURE_SETUP(host_exact)
{
	const char *missing = something_missing();

	if (missing)
		SKIP(return, "%s", missing);

	pin_self_to_cpu(0);
	self->vm = pmu_vm_create(&self->vcpu, guest_count);
	map_mmio(self->vm);
	event_open(&self->event, variant->mode);
	if (variant->others)
		for (; self->nr_others < shape.nr_gp + 2; self->nr_others++)
			self->others[self->nr_others] = open_event(variant->mode, false);
}

FIXTURE_TEARDOWN(host_exact)
{
	unsigned int i;

	for (i = 0; i < self->nr_others; i++)
		close(self->others[i]);
	event_close(&self->event);
	kvm_vm_free(self->vm);
}

static void use_the_host(void)
{
	const struct timespec moment = { .tv_nsec = 1000000 };
	unsigned int i;

	for (i = 0; i < NR_SYSCALLS; i++)
		syscall(SYS_getppid);
	for (i = 0; i < 10; i++)
		nanosleep(&moment, NULL);
}

/* The ground on which the others stand. */
TEST_F(host_exact, without_guests)
{
	struct counts from, to;
	unsigned int i;

	for (i = 0; i < NR_RUNS; i++) {
		from = look_at(&self->event);
		use_the_host();
		to = look_at(&self->event);
		EXPECT_LT(NR_SYSCALLS, to.user - from.user);
		EXPECT_EQ(0, missed(&self->event, &from, &to));
	}
}

static void run_and_look(const struct event *event, struct kvm_vcpu *vcpu)
{
	struct counts from, to;
	unsigned int i;

	for (i = 0; i < NR_RUNS; i++) {
		from = look_at(event);
		TEST_ASSERT(run_guest(vcpu, NULL), "The guest never ends");
		use_the_host();
		to = look_at(event);
		TEST_ASSERT(to.exits - from.exits > 5 * NR_EXITS, "Only %lu exits",
			    to.exits - from.exits);
		TEST_ASSERT_EQ(missed(event, &from, &to), 0);
	}
}

TEST_F(host_exact, while_a_guest_counts)
{
	/* The kernel's way into the guest and out of it is another test. */
	if (variant->mode != USER)
		return;

	run_and_look(&self->event, self->vcpu);
}

struct churn {
	bool stop;
	u64 rounds;
};

/* On another CPU, if there is one. */
static void *come_and_go(void *data)
{
	struct churn *churn = data;
	u64 count;
	int fd;

	pin_self_to_cpu(sysconf(_SC_NPROCESSORS_ONLN) - 1);
	while (!READ_ONCE(churn->stop)) {
		fd = open_event(USER_AND_KERNEL, false);
		TEST_ASSERT_EQ(read(fd, &count, sizeof(count)), sizeof(count));
		TEST_ASSERT(!ioctl(fd, PERF_EVENT_IOC_DISABLE, 0), "ioctl() of an event");
		TEST_ASSERT(!ioctl(fd, PERF_EVENT_IOC_ENABLE, 0), "ioctl() of an event");
		TEST_ASSERT_EQ(read(fd, &count, sizeof(count)), sizeof(count));
		close(fd);
		churn->rounds++;
	}
	return NULL;
}

/* Events of CPU 0 are created, read, stopped, started and closed all the time. */
TEST_F(host_exact, while_a_guest_counts_and_other_events_come_and_go)
{
	struct churn churn = {};
	pthread_t thread;

	if (variant->mode != USER)
		return;

	TEST_ASSERT_EQ(pthread_create(&thread, NULL, come_and_go, &churn), 0);
	while (READ_ONCE(churn.rounds) < NR_RUNS)
		sched_yield();
	run_and_look(&self->event, self->vcpu);
	WRITE_ONCE(churn.stop, true);
	pthread_join(thread, NULL);
}

FIXTURE(host_exits) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	struct event event;
};

FIXTURE_SETUP(host_exits)
{
	const char *missing = something_missing();

	if (missing)
		SKIP(return, "%s", missing);

	pin_self_to_cpu(0);
	self->vm = pmu_vm_create(&self->vcpu, guest_exit);
	vm_userspace_mem_region_add(self->vm, VM_MEM_SRC_ANONYMOUS, FRESH_GPA, 1,
				    NR_FRESH_PAGES, 0);
	virt_map(self->vm, FRESH_GVA, FRESH_GPA, NR_FRESH_PAGES);
	/* A kernel without huge pages does not know it. */
	TEST_ASSERT(!madvise(addr_gpa2hva(self->vm, FRESH_GPA), NR_FRESH_PAGES * PAGE_SIZE,
			     MADV_NOHUGEPAGE) || errno == EINVAL, "madvise");
	event_open(&self->event, USER_AND_KERNEL);
}

FIXTURE_TEARDOWN(host_exits)
{
	event_close(&self->event);
	kvm_vm_free(self->vm);
}

struct exit {
	u64 exits;
	u64 executed;
	s64 missed;
};

/*
 * An exit with this cause, and the one to userspace.  An interrupt of the host is
 * an exit more, with a way of its own: then it is done again.
 */
static struct exit take_exit(const struct event *event, struct kvm_vcpu *vcpu, enum cause now)
{
	struct counts from, to;
	struct exit exit;

	cause = now;
	sync_global_to_guest(vcpu->vm, cause);
	exit.exits = now == NOTHING ? 1 : 2;
	do {
		from = look_at(event);
		TEST_ASSERT(run_to_io(vcpu), "The guest never ends");
		to = look_at(event);
	} while (to.exits - from.exits != exit.exits);
	exit.executed = to.kernel + to.user - from.kernel - from.user;
	exit.missed = missed(event, &from, &to);
	return exit;
}

/*
 * While the PMU is the guest's, the host's kernel is not counted: that is the way
 * from perf's last instruction into the guest, and back.  It has as many
 * instructions whatever the exit was and however long its handling took, but for
 * a few branches on the way.
 */
static void miss_the_switch_only(const struct event *event, struct kvm_vcpu *vcpu)
{
	u64 shortest = -1, longest = 0;
	struct exit exit;
	s64 once = 0;
	unsigned int i;

	for (i = 0; i < NR_CAUSES * NR_RUNS; i++) {
		exit = take_exit(event, vcpu, i % NR_CAUSES);
		if (!i)
			once = exit.missed;
		TEST_ASSERT(llabs(exit.missed - once * (s64)exit.exits) <
			    BRANCHES_ON_THE_WAY * (s64)exit.exits,
			    "Of %s, %lu instructions in all, %ld are missed; of an exit alone %ld",
			    causes[i % NR_CAUSES], exit.executed, (long)exit.missed, (long)once);
		if (exit.exits == 2) {
			shortest = min(shortest, exit.executed);
			longest = max(longest, exit.executed);
		}
	}
	TEST_ASSERT(once > 0, "There was no switch");
	/* The handling of different exits is what differs. */
	TEST_ASSERT(shortest + 100 * BRANCHES_ON_THE_WAY < longest, "All exits are the same");
}

/*
 * A guest that does not count has nothing to do with perf, unless its PMU is
 * switched all the same: as KVM's own code does, and switch=eager.
 */
TEST_F(host_exits, all_is_counted_if_the_guest_does_not_count)
{
	unsigned int i;

	vcpu_args_set(self->vcpu, 1, false);
	ASSERT_TRUE(run_to_io(self->vcpu));
	if (pmu_loads(self->vcpu)) {
		miss_the_switch_only(&self->event, self->vcpu);
		return;
	}
	for (i = 0; i < NR_CAUSES * NR_RUNS; i++)
		EXPECT_EQ(0, take_exit(&self->event, self->vcpu, i % NR_CAUSES).missed);
	EXPECT_EQ(0, pmu_loads(self->vcpu));
}

/* Seen to fail when the guest's state stays in hardware though an event waits. */
TEST_F(host_exits, all_but_the_switch_is_counted_if_the_guest_counts)
{
	vcpu_args_set(self->vcpu, 1, true);
	ASSERT_TRUE(run_to_io(self->vcpu));
	miss_the_switch_only(&self->event, self->vcpu);
}

TEST_HARNESS_MAIN
