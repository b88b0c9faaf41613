// SPDX-License-Identifier: GPL-2.0
/*
 * A guest reads nothing of another guest that runs in turn with it on the same
 * CPU, neither when it boots nor later, neither in CPL 0 nor in CPL 3.
 *
 * Seen to fail when a load takes what was saved last, whoever's it is; the spies
 * that count nothing only with switch=eager, as else nothing of theirs is loaded.
 * The user mode that may not read cannot be made to leak: the CPU refuses its RDPMC
 * before KVM sees it.  What a put leaves behind no guest sees, as a load writes over
 * it: the attackers in the host do.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "harness.h"
#include "attack.h"

#define TURNS	2000
#define ROUNDS	200
/* For reads that may exit: each takes 100 times as long. */
#define TURNS_WITH_EXITS	500
#define ROUNDS_WITH_EXITS	20
#define BOOTS	20

/*
 * What the spy does with its own PMU: nothing, so that none of it is in hardware;
 * counter 0 waits for CPL 3, which never comes; or it counts.
 */
enum own_counter { IDLE, RESTS, COUNTS };

struct spy {
	enum victim_mode mode;
	enum own_counter own;
	unsigned int turns;
	unsigned int rounds;
	struct attack attack;
};

/* Each guest has its own copy. */
static struct spy spy;

/* Guest: the spy */

/* What is not the spy's own is 0. */
static void check(u64 place, u64 value, u64 expected)
{
	spy.attack.reads++;
	if (value != expected)
		attack_leak(&spy.attack, place, value);
}

/* Its only counter that counts does not come far. */
static void check_counter(u64 place, u64 value, unsigned int pmc)
{
	check(place, spy.own == COUNTS && pmc == 0 ? value >> 32 : value, 0);
}

static void spy_by_rdpmc(void)
{
	unsigned int round, pmc;

	for (round = 0; round < spy.rounds; round++)
		for (pmc = 0; pmc < nr_counters(); pmc++)
			check_counter(rdpmc_index(pmc), pmc_read(pmc), pmc);
}

static u64 own_selector(void)
{
	switch (spy.own) {
	case RESTS:
		return vendor->event[BRANCHES] | PMC_USR | PMC_ENABLE;
	case COUNTS:
		return vendor->event[BRANCHES] | PMC_USR | PMC_COUNT;
	default:
		return 0;
	}
}

static void spy_by_rdmsr(u64 global_control)
{
	unsigned int pmc;
	u32 msr;

	for (pmc = 0; pmc < nr_counters(); pmc++) {
		msr = counter_msr(pmc);
		check_counter(msr, rdmsr(msr), pmc);
	}
	for (pmc = 0; pmc < shape.nr_gp; pmc++) {
		msr = selector_msr(pmc);
		check(msr, rdmsr(msr), pmc == 0 ? own_selector() : 0);
	}
	if (vendor->fixed_control)
		check(vendor->fixed_control, rdmsr(vendor->fixed_control), 0);
	check(vendor->global_control, rdmsr(vendor->global_control), global_control);
	check(vendor->global_status, rdmsr(vendor->global_status), 0);
}

/* The general purpose counters are enabled globally after RESET. */
static u64 control_after_reset(void)
{
	return BIT_ULL(shape.nr_gp) - 1;
}

static void guest_spy(void)
{
	enum own_counter own = spy.own;
	unsigned int turn;

	spy.own = IDLE;
	spy_by_rdmsr(control_after_reset());
	spy_by_rdpmc();

	spy.own = own;
	turns_begin();
	if (own != IDLE) {
		wrmsr(selector_msr(0), own_selector());
		spy_by_rdpmc();
		wrmsr(vendor->global_control, counter_bit(0));
	}
	for (turn = 0; turn < spy.turns && !spy.attack.leaks; turn++) {
		turn_over();
		if (spy.mode == VICTIM_HALTS)
			wait_for_kick();
		spy.attack.switches++;
		spy_by_rdpmc();
		spy_by_rdmsr(own == IDLE ? control_after_reset() : counter_bit(0));
	}
	GUEST_DONE();
}

/* In CPL 3, with CR4.PCE. */
static void guest_user_spy(void)
{
	unsigned int turn;

	for (turn = 0; turn < spy.turns && !spy.attack.leaks; turn++) {
		turn_over();
		spy.attack.switches++;
		spy_by_rdpmc();
	}
	GUEST_DONE();
}

/* In CPL 3, without it. */
static void guest_user_without_right(void)
{
	unsigned int turn, round, pmc;
	u64 value = 0;

	for (turn = 0; turn < spy.turns && !spy.attack.leaks; turn++) {
		turn_over();
		spy.attack.switches++;
		for (round = 0; round < spy.rounds; round++) {
			for (pmc = 0; pmc < nr_counters(); pmc++) {
				u8 vector = rdpmc_safe(rdpmc_index(pmc), &value);

				check(rdpmc_index(pmc), vector, GP_VECTOR);
			}
		}
	}
	GUEST_DONE();
}

/* Host */

static struct kvm_vm *spy_create(struct kvm_vcpu **vcpu, void *guest_code)
{
	struct kvm_vm *vm = pmu_vm_create(vcpu, guest_code);

	/* KVM intercepts RDPMC when the CPU has counters that the guest lacks. */
	if (!guest_has_all_counters()) {
		spy.turns = min(spy.turns, TURNS_WITH_EXITS);
		spy.rounds = ROUNDS_WITH_EXITS;
	}
	sync_global_to_guest(vm, spy);
	return vm;
}

/* Runs the victim and the spy in turn until the spy ends: as often as it knows. */
static void take_turns(struct kvm_vcpu *victim, struct kvm_vcpu *vcpu)
{
	u64 turns = victim_turns(victim);

	while (run_to_io(vcpu))
		TEST_ASSERT(run_to_io(victim), "The victim never ends");
	sync_global_from_guest(vcpu->vm, spy);
	TEST_ASSERT_EQ(victim_turns(victim) - turns, spy.attack.switches);
}

static void no_action(int signal)
{
}

static void *run_to_signal(void *vcpu)
{
	TEST_ASSERT(__vcpu_run(vcpu) < 0 && errno == EINTR, "The victim never ends");
	return NULL;
}

/* The same, each in a thread that stays in the kernel: each turn is a halt. */
static void take_turns_in_kernel(struct kvm_vcpu *victim, struct kvm_vcpu *vcpu)
{
	struct sigaction action = { .sa_handler = no_action };
	int of_victim = eventfd(0, 0), of_spy = eventfd(0, 0);
	pthread_t thread;

	connect_turns(victim->vm, of_spy, of_victim);
	connect_turns(vcpu->vm, of_victim, of_spy);
	sigaction(SIGUSR1, &action, NULL);
	TEST_ASSERT_EQ(pthread_create(&thread, NULL, run_to_signal, victim), 0);
	pin_task_to_cpu(thread, 0);

	TEST_ASSERT(!run_to_io(vcpu), "The spy has to end");
	sync_global_from_guest(vcpu->vm, spy);

	victim->run->immediate_exit = 1;
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	TEST_ASSERT_EQ(victim_turns(victim), spy.attack.switches);
	close(of_victim);
	close(of_spy);
}

FIXTURE(attack_guest) {
	struct kvm_vcpu *victim;
};

FIXTURE_VARIANT(attack_guest) {
	const char *name;
	struct spy spy;
};

FIXTURE_VARIANT_ADD(attack_guest, idle_with_exits) {
	.name = "guest-in-turns/idle-exits",
	.spy = { VICTIM_EXITS, IDLE, TURNS_WITH_EXITS, ROUNDS_WITH_EXITS },
};

FIXTURE_VARIANT_ADD(attack_guest, idle_with_halts) {
	.name = "guest-in-turns/idle-halts",
	.spy = { VICTIM_HALTS, IDLE, TURNS_WITH_EXITS, ROUNDS_WITH_EXITS },
};

FIXTURE_VARIANT_ADD(attack_guest, resting_with_exits) {
	.name = "guest-in-turns/resting-exits",
	.spy = { VICTIM_EXITS, RESTS, TURNS_WITH_EXITS, ROUNDS },
};

FIXTURE_VARIANT_ADD(attack_guest, resting_with_halts) {
	.name = "guest-in-turns/resting-halts",
	.spy = { VICTIM_HALTS, RESTS, TURNS_WITH_EXITS, ROUNDS },
};

FIXTURE_VARIANT_ADD(attack_guest, counting_with_exits) {
	.name = "guest-in-turns/counting-exits",
	.spy = { VICTIM_EXITS, COUNTS, TURNS, ROUNDS },
};

FIXTURE_VARIANT_ADD(attack_guest, counting_with_halts) {
	.name = "guest-in-turns/counting-halts",
	.spy = { VICTIM_HALTS, COUNTS, TURNS, ROUNDS },
};

FIXTURE_SETUP(attack_guest)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);

	pin_self_to_cpu(0);
	spy = variant->spy;
	victim_create(&self->victim, spy.mode);
	ASSERT_TRUE(run_to_io(self->victim));
}

FIXTURE_TEARDOWN(attack_guest)
{
	kvm_vm_free(self->victim->vm);
}

TEST_F(attack_guest, guest_reads_nothing_of_another)
{
	struct kvm_vcpu *vcpu;

	spy_create(&vcpu, guest_spy);
	if (spy.mode == VICTIM_HALTS)
		take_turns_in_kernel(self->victim, vcpu);
	else
		take_turns(self->victim, vcpu);
	/* Each turn ends with the spy's state out of hardware. */
	if (spy.own != IDLE)
		EXPECT_LE(spy.attack.switches, pmu_loads(vcpu));
	kvm_vm_free(vcpu->vm);

	report_attack(variant->name, &spy.attack);
	EXPECT_EQ(0, spy.attack.leaks);
}

FIXTURE(attack_guest_once) {
	struct kvm_vcpu *victim;
};

FIXTURE_SETUP(attack_guest_once)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);

	pin_self_to_cpu(0);
	victim_create(&self->victim, VICTIM_EXITS);
	ASSERT_TRUE(run_to_io(self->victim));
}

FIXTURE_TEARDOWN(attack_guest_once)
{
	kvm_vm_free(self->victim->vm);
}

static struct attack attack_at_boot(struct kvm_vcpu *victim, enum own_counter own)
{
	struct attack sum = {};
	struct kvm_vcpu *vcpu;

	while (sum.switches < BOOTS) {
		spy = (struct spy) { .own = own, .rounds = ROUNDS_WITH_EXITS };
		spy_create(&vcpu, guest_spy);
		TEST_ASSERT(run_to_io(victim), "The victim never ends");
		take_turns(victim, vcpu);
		TEST_ASSERT(own == IDLE || pmu_loads(vcpu), "The spy was never in hardware");
		kvm_vm_free(vcpu->vm);

		sum.switches++;
		sum.reads += spy.attack.reads;
		if (spy.attack.leaks)
			attack_leak(&sum, spy.attack.place, spy.attack.value);
	}
	return sum;
}

TEST_F(attack_guest_once, guest_reads_nothing_at_boot)
{
	struct attack attack = attack_at_boot(self->victim, IDLE);

	report_attack("guest-at-boot/idle", &attack);
	EXPECT_EQ(0, attack.leaks);
}

TEST_F(attack_guest_once, guest_reads_nothing_with_its_first_counter)
{
	struct attack attack = attack_at_boot(self->victim, RESTS);

	report_attack("guest-at-boot/resting", &attack);
	EXPECT_EQ(0, attack.leaks);
}

/* Counter 0 counts in user mode, so that the PMU is the guest's. */
static struct kvm_vcpu *user_spy_create(void *guest_code, bool may_read)
{
	struct kvm_vcpu *vcpu;
	struct kvm_sregs sregs;

	spy_create(&vcpu, guest_code);
	enter_user_mode(vcpu);
	vcpu_sregs_get(vcpu, &sregs);
	if (may_read)
		sregs.cr4 |= X86_CR4_PCE;
	vcpu_sregs_set(vcpu, &sregs);
	vcpu_set_msr(vcpu, selector_msr(0),
		     vendor->event[INSTRUCTIONS] | PMC_USR | PMC_ENABLE);
	return vcpu;
}

TEST_F(attack_guest_once, guest_user_mode_reads_its_own_guest_only)
{
	struct kvm_vcpu *vcpu;

	spy = (struct spy) { VICTIM_EXITS, COUNTS, TURNS, ROUNDS };
	vcpu = user_spy_create(guest_user_spy, true);
	take_turns(self->victim, vcpu);
	EXPECT_NE(0, vcpu_get_msr(vcpu, counter_msr(0)));
	kvm_vm_free(vcpu->vm);

	report_attack("guest-user-mode/pce", &spy.attack);
	EXPECT_EQ(0, spy.attack.leaks);
}

TEST_F(attack_guest_once, guest_user_mode_reads_nothing_without_the_right)
{
	struct kvm_vcpu *vcpu;

	spy = (struct spy) { VICTIM_EXITS, COUNTS, TURNS, ROUNDS };
	vcpu = user_spy_create(guest_user_without_right, false);
	take_turns(self->victim, vcpu);
	EXPECT_NE(0, vcpu_get_msr(vcpu, counter_msr(0)));
	kvm_vm_free(vcpu->vm);

	report_attack("guest-user-mode/no-pce", &spy.attack);
	EXPECT_EQ(0, spy.attack.leaks);
}

/* The attacker above, with the right: it must notice each time. */
TEST_F(attack_guest_once, guest_user_mode_with_the_right_reads)
{
	struct kvm_vcpu *vcpu;

	spy = (struct spy) { VICTIM_EXITS, COUNTS, 1, ROUNDS_WITH_EXITS };
	vcpu = user_spy_create(guest_user_without_right, true);
	take_turns(self->victim, vcpu);
	kvm_vm_free(vcpu->vm);

	EXPECT_EQ(ROUNDS_WITH_EXITS * nr_counters(), spy.attack.reads);
	EXPECT_EQ(spy.attack.reads, spy.attack.leaks);
}

TEST_HARNESS_MAIN
