// SPDX-License-Identifier: GPL-2.0
/*
 * Host processes that may execute RDPMC read nothing of a guest, whenever they
 * run: in the vCPU's own thread, in turn with it on the same CPU, in the middle
 * of it, or beside it on another CPU.
 *
 * Seen to fail when a put leaves a counter, or is skipped at an exit to
 * userspace or at preemption: all but the attacker on a sibling CPU.  That one
 * reads counters of a CPU on which the victim never is, and only code on a CPU can
 * write them: neither KVM nor mvpmu sends any to another CPU.  What it reads, and
 * how, is what the attacker does on the CPU that the vCPU leaves, which was seen
 * to fail.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "attack.h"

/* How often attacker and victim take turns, and what is read in each. */
#define SWITCHES	2000
#define ROUNDS		200
#define READS		2000000
/* A switch costs a wake-up by a timer. */
#define PREEMPTIONS	1000

/*
 * The attacker is a process with an address space of its own.  It is forked
 * before there is a VM, so the two have nothing in common but these.
 */
struct attacker {
	const char *name;
	enum rdpmc_right right;
	int cpu;
	void (*attack)(struct attacker *attacker, struct rdpmc_reader *reader);
	pid_t victim;
	int ready;			/* eventfds */
	int kick;
	int turn_over;
	struct attack *result;		/* shared memory */
	pid_t pid;
};

static void signal_event(int event)
{
	u64 one = 1;

	TEST_ASSERT_EQ(write(event, &one, sizeof(one)), sizeof(one));
}

/* False when interrupted. */
static bool wait_for_event(int event)
{
	u64 count;

	return read(event, &count, sizeof(count)) == sizeof(count);
}

/* The attacker's side */

static void attack_in_turns(struct attacker *attacker, struct rdpmc_reader *reader)
{
	while (attacker->result->switches < SWITCHES && !attacker->result->leaks) {
		signal_event(attacker->kick);
		TEST_ASSERT(wait_for_event(attacker->turn_over), "No turn");
		attacker->result->switches++;
		reader_read(reader, ROUNDS);
	}
}

/* How often a thread had to leave its CPU. */
static u64 preemptions(pid_t thread)
{
	char path[32], line[128];
	u64 count = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", thread);
	file = fopen(path, "r");
	TEST_ASSERT(file, "Cannot open %s", path);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "nonvoluntary_ctxt_switches: %lu", &count) == 1)
			break;
	fclose(file);
	return count;
}

/*
 * The victim does nothing but run: each wake-up is in the middle of it, unless the
 * nap was over before the attacker had left the CPU.
 */
static void attack_by_preemption(struct attacker *attacker, struct rdpmc_reader *reader)
{
	const struct timespec moment = { .tv_nsec = 1000 };
	u64 before, now;

	TEST_ASSERT(wait_for_event(attacker->turn_over), "No turn");
	before = preemptions(attacker->victim);
	while (attacker->result->switches < PREEMPTIONS && !attacker->result->leaks) {
		nanosleep(&moment, NULL);
		reader_read(reader, 2 * ROUNDS);
		now = preemptions(attacker->victim);
		attacker->result->switches += now != before;
		before = now;
	}
}

/* The victim counts its turns. */
static void attack_all_the_time(struct attacker *attacker, struct rdpmc_reader *reader)
{
	while ((READ_ONCE(attacker->result->switches) < SWITCHES ||
		attacker->result->reads < READS) && !attacker->result->leaks)
		reader_read(reader, ROUNDS);
}

/* The attacker's, for the signal handler. */
static int kick;

static void attacker_start(struct attacker *attacker)
{
	struct rdpmc_reader reader;

	attacker->ready = eventfd(0, 0);
	attacker->kick = eventfd(0, 0);
	attacker->turn_over = eventfd(0, 0);
	attacker->result = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(attacker->result != MAP_FAILED, "mmap() failed");

	kick = attacker->kick;
	attacker->victim = gettid();
	attacker->pid = fork();
	TEST_ASSERT(attacker->pid >= 0, "fork() failed");
	if (attacker->pid) {
		TEST_ASSERT(wait_for_event(attacker->ready), "The attacker does not start");
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin_self_to_cpu(attacker->cpu);
	reader_open(&reader, attacker->result, attacker->right);
	signal_event(attacker->ready);
	attacker->attack(attacker, &reader);
	_exit(0);
}

/* The victim's side */

static struct kvm_vcpu *victim;
static bool attacker_ended;

/* The victim may be about to enter the guest, or to wait for its turn. */
static void on_attacker_end(int signal)
{
	WRITE_ONCE(attacker_ended, true);
	signal_event(kick);
	if (victim)
		victim->run->immediate_exit = 1;
}

static void prepare_for_end(void)
{
	struct sigaction action = { .sa_handler = on_attacker_end };

	victim = NULL;
	attacker_ended = false;
	sigaction(SIGCHLD, &action, NULL);
}

static int attacker_end(struct attacker *attacker)
{
	int status = 0;

	TEST_ASSERT_EQ(waitpid(attacker->pid, &status, 0), attacker->pid);
	report_attack(attacker->name, attacker->result);
	return status;
}

/* KVM_RUN to its next return; false when the attacker has ended. */
static bool run_victim(void)
{
	if (READ_ONCE(attacker_ended))
		return false;
	if (__vcpu_run(victim) < 0) {
		TEST_ASSERT(errno == EINTR, __KVM_IOCTL_ERROR(KVM_RUN, -1));
		return !READ_ONCE(attacker_ended);
	}
	if (victim->run->exit_reason != KVM_EXIT_IO ||
	    victim->run->io.port != TEST_PORT) {
		struct ucall uc;

		if (get_ucall(victim, &uc) == UCALL_ABORT)
			REPORT_GUEST_ASSERT(uc);
		TEST_FAIL("Unexpected exit %u", victim->run->exit_reason);
	}
	return true;
}

FIXTURE(attack_host) {
	struct attacker attacker;
	struct kvm_vm *vm;
};

FIXTURE_VARIANT(attack_host) {
	enum rdpmc_right right;
	const char *names[6];
};

#define NAMES(right)								\
	{ "thread-after-run/" right, "process-after-exit/" right,		\
	  "process-at-halt/" right, "process-preempting/" right,		\
	  "process-on-sibling/" right, "process-left-behind/" right }

enum { THREAD, AFTER_EXIT, AT_HALT, PREEMPTING, SIBLING, LEFT_BEHIND };

FIXTURE_VARIANT_ADD(attack_host, own_event) {
	.right = OWN_EVENT,
	.names = NAMES("own-event"),
};

FIXTURE_VARIANT_ADD(attack_host, every_process) {
	.right = EVERY_PROCESS,
	.names = NAMES("every-process"),
};

FIXTURE_SETUP(attack_host)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
	if (!grant_rdpmc(variant->right))
		SKIP(return, "perf has no such right");

	prepare_for_end();
	self->attacker.right = variant->right;
	pin_self_to_cpu(0);
}

FIXTURE_TEARDOWN(attack_host)
{
	drop_rdpmc(variant->right);
	if (self->vm)
		kvm_vm_free(self->vm);
}

static struct kvm_vm *create_victim(enum victim_mode mode)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm = victim_create(&vcpu, mode);

	victim = vcpu;
	TEST_ASSERT(run_victim(), "No victim");
	return vm;
}

TEST_F(attack_host, vcpu_thread_reads_nothing_after_a_run)
{
	struct rdpmc_reader reader;
	struct attack attack = {};

	self->vm = create_victim(VICTIM_EXITS);
	reader_open(&reader, &attack, variant->right);
	while (attack.switches < SWITCHES && !attack.leaks) {
		run_victim();
		attack.switches++;
		reader_read(&reader, ROUNDS);
	}
	reader_close(&reader);
	report_attack(variant->names[THREAD], &attack);
	EXPECT_EQ(attack.switches, victim_turns(victim));
	EXPECT_EQ(0, attack.leaks);
}

TEST_F(attack_host, process_reads_nothing_after_an_exit_to_userspace)
{
	struct attacker *attacker = &self->attacker;

	attacker->name = variant->names[AFTER_EXIT];
	attacker->attack = attack_in_turns;
	attacker_start(attacker);
	self->vm = create_victim(VICTIM_EXITS);
	while (wait_for_event(attacker->kick) && run_victim())
		signal_event(attacker->turn_over);

	EXPECT_EQ(0, attacker_end(attacker));
	EXPECT_EQ(attacker->result->switches, victim_turns(victim));
	EXPECT_EQ(0, attacker->result->leaks);
}

/* The vCPU thread does not leave the kernel: KVM_RUN returns at the end only. */
TEST_F(attack_host, process_reads_nothing_while_the_vcpu_halts)
{
	struct attacker *attacker = &self->attacker;
	u64 turns;

	attacker->name = variant->names[AT_HALT];
	attacker->attack = attack_in_turns;
	attacker_start(attacker);
	self->vm = create_victim(VICTIM_HALTS);
	connect_turns(self->vm, attacker->turn_over, attacker->kick);
	EXPECT_FALSE(run_victim());

	EXPECT_EQ(0, attacker_end(attacker));
	/* The attacker's end is a kick, too, that the victim may have got or not. */
	turns = victim_turns(victim) - attacker->result->switches;
	EXPECT_TRUE(turns == 0 || turns == 1);
	EXPECT_EQ(0, attacker->result->leaks);
}

/* Nor here: the vCPU is preempted, wherever it is. */
TEST_F(attack_host, process_reads_nothing_when_it_preempts_the_vcpu)
{
	struct attacker *attacker = &self->attacker;

	attacker->name = variant->names[PREEMPTING];
	attacker->attack = attack_by_preemption;
	attacker_start(attacker);
	self->vm = create_victim(VICTIM_SPINS);
	signal_event(attacker->turn_over);
	EXPECT_FALSE(run_victim());

	EXPECT_EQ(0, attacker_end(attacker));
	/* The victim went on between them, and has kept its secrets. */
	EXPECT_LE(attacker->result->switches, preemptions(gettid()));
	EXPECT_NE(0, victim_turns(victim));
	EXPECT_EQ(0, attacker->result->leaks);
}

static bool has_two_cpus(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) >= 2;
}

TEST_F(attack_host, process_reads_nothing_on_a_sibling_cpu)
{
	struct attacker *attacker = &self->attacker;

	if (!has_two_cpus())
		SKIP(return, "needs two CPUs");

	attacker->name = variant->names[SIBLING];
	attacker->attack = attack_all_the_time;
	attacker->cpu = 1;
	attacker_start(attacker);
	self->vm = create_victim(VICTIM_EXITS);
	while (run_victim())
		WRITE_ONCE(attacker->result->switches, attacker->result->switches + 1);

	EXPECT_EQ(0, attacker_end(attacker));
	EXPECT_EQ(0, attacker->result->leaks);
}

/* The victim is on the attacker's CPU every second turn. */
TEST_F(attack_host, process_reads_nothing_when_the_vcpu_leaves_its_cpu)
{
	struct attacker *attacker = &self->attacker;

	if (!has_two_cpus())
		SKIP(return, "needs two CPUs");

	attacker->name = variant->names[LEFT_BEHIND];
	attacker->attack = attack_all_the_time;
	attacker->cpu = 1;
	attacker_start(attacker);
	self->vm = create_victim(VICTIM_EXITS);
	while (run_victim()) {
		WRITE_ONCE(attacker->result->switches, attacker->result->switches + 1);
		pin_self_to_cpu(attacker->result->switches % 2);
	}

	EXPECT_EQ(0, attacker_end(attacker));
	EXPECT_EQ(0, attacker->result->leaks);
}

TEST_HARNESS_MAIN
