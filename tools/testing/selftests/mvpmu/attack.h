/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the attackers share: a guest whose PMU is full of secrets, and those who
 * want to read them.
 *
 * A secret is a value that nobody else has: each counter of the victim has
 * SECRET_TAG in its upper bits, counts on from there, and each bit of its
 * GLOBAL_STATUS is set.  An attacker reads, over and over, everything that it
 * may read; what is neither its own nor was there before the victim ran is a
 * leak.
 */
#ifndef SELFTEST_MVPMU_ATTACK_H
#define SELFTEST_MVPMU_ATTACK_H

#include <linux/perf_event.h>

#include "guest_pmu.h"

/* Above what can be counted while an attacker runs: slots, too, are fewer than 2^36. */
#define SECRET_TAG	0x5ecull
#define SECRET_SHIFT	36
#define SECRET(pmc)	(SECRET_TAG << SECRET_SHIFT | (u64)(pmc) << 28)

static inline bool is_secret(u64 value)
{
	return value >> SECRET_SHIFT == SECRET_TAG;
}

struct attack {
	u64 reads;
	u64 switches;	/* between victim and attacker */
	u64 leaks;	/* the attack may end at the first */
	/* The first leak. */
	u64 place;
	u64 value;
};

static inline void attack_leak(struct attack *attack, u64 place, u64 value)
{
	if (!attack->leaks++) {
		attack->place = place;
		attack->value = value;
	}
}

/* One line of diagnostics that programs read, and one for people at a leak. */
void report_attack(const char *name, const struct attack *attack);

/*
 * The victim, a guest, lets others run in one of three ways: an exit to
 * userspace, a halt in the kernel until its interrupt comes, or not at all.  At
 * first an exit says that its secrets are in place.
 */
enum victim_mode { VICTIM_EXITS, VICTIM_HALTS, VICTIM_SPINS };

struct kvm_vm *victim_create(struct kvm_vcpu **vcpu, enum victim_mode mode);

/*
 * Host: the OUT with which a guest in mode VICTIM_HALTS ends its turn signals
 * the eventfd @turn_over in the kernel, and the eventfd @kick is its interrupt.
 */
void connect_turns(struct kvm_vm *vm, int turn_over, int kick);

/* Guest: be ready for turns; then end one. */
void turns_begin(void);
void turn_over(void);
/* Guest: wait for the interrupt. */
void wait_for_kick(void);

/* Host: the turns that a victim has begun. */
u64 victim_turns(struct kvm_vcpu *victim);

/*
 * The right to execute RDPMC in user mode: perf grants it to a process that has
 * mapped an event, or to all, which is what 2 in sysfs says.
 */
enum rdpmc_right { OWN_EVENT, EVERY_PROCESS };

#define MAX_PMCS	32

struct rdpmc_reader {
	struct attack *attack;
	struct perf_event_mmap_page *page;
	int event;
	unsigned int nr;
	unsigned int own;		/* index into the arrays, or MAX_PMCS */
	u32 index[MAX_PMCS];
	u64 before[MAX_PMCS];
};

/* Host: false when there is no such right.  For all processes, until dropped. */
bool grant_rdpmc(enum rdpmc_right right);
void drop_rdpmc(enum rdpmc_right right);
/* Host: the calling thread is an attacker from now on. */
void reader_open(struct rdpmc_reader *reader, struct attack *attack,
		 enum rdpmc_right right);
void reader_close(struct rdpmc_reader *reader);
/* Host: read each counter of the CPU @rounds times. */
void reader_read(struct rdpmc_reader *reader, unsigned int rounds);

#endif /* SELFTEST_MVPMU_ATTACK_H */
