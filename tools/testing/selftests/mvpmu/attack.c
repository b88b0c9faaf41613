// SPDX-License-Identifier: GPL-2.0
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "apic.h"
#include "attack.h"

#define KICK_VECTOR	0x61
#define KICK_GSI	1
#define RDPMC_ATTRIBUTE	"/sys/bus/event_source/devices/cpu/rdpmc"

void report_attack(const char *name, const struct attack *attack)
{
	fprintf(stderr, "# attacker %s reads %lu switches %lu leaks %lu\n", name,
		attack->reads, attack->switches, attack->leaks);
	if (attack->leaks)
		fprintf(stderr, "# the first leak: 0x%lx in 0x%lx\n",
			attack->value, attack->place);
}

/* Guest: the turns */

static void guest_kick(struct ex_regs *regs)
{
	x2apic_write_reg(APIC_EOI, 0);
}

void turns_begin(void)
{
	asm volatile("cli");
	x2apic_enable();
}

void turn_over(void)
{
	asm volatile("outb %%al, %%dx" : : "a"(0), "d"(TEST_PORT) : "memory");
}

void wait_for_kick(void)
{
	/* The interrupt cannot come between the two. */
	asm volatile("sti; hlt; cli" : : : "memory");
}

void connect_turns(struct kvm_vm *vm, int turn_over, int kick)
{
	struct {
		struct kvm_irq_routing header;
		struct kvm_irq_routing_entry entry;
	} routing = {
		.header.nr = 1,
		.entry = {
			.gsi = KICK_GSI,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi.address_lo = APIC_DEFAULT_GPA,
			.u.msi.data = KICK_VECTOR,
		},
	};
	struct kvm_ioeventfd io = {
		.addr = TEST_PORT,
		.len = 1,
		.fd = turn_over,
		.flags = KVM_IOEVENTFD_FLAG_PIO,
	};

	vm_install_exception_handler(vm, KICK_VECTOR, guest_kick);
	vm_ioctl(vm, KVM_SET_GSI_ROUTING, &routing.header);
	vm_ioctl(vm, KVM_IOEVENTFD, &io);
	kvm_assign_irqfd(vm, KICK_GSI, kick);
}

/* Guest: the victim */

static void hide_secrets(void)
{
	unsigned int pmc;
	u64 all = 0;

	/* Each counter overflows once, for its status bit. */
	pmu_reset();
	for (pmc = 0; pmc < nr_counters(); pmc++) {
		pmc_program(pmc, INSTRUCTIONS, PMC_USR | PMC_COUNT, overflow_in(1));
		all |= counter_bit(pmc);
	}
	wrmsr(vendor->global_control, all);
	wrmsr(vendor->global_control, 0);
	GUEST_ASSERT_EQ(rdmsr(vendor->global_status), all);

	for (pmc = 0; pmc < nr_counters(); pmc++)
		wrmsr(counter_msr(pmc), SECRET(pmc));
	wrmsr(vendor->global_control, all);
}

static void check_secrets(void)
{
	unsigned int pmc;

	for (pmc = 0; pmc < nr_counters(); pmc++) {
		u64 value = pmc_read(pmc);

		__GUEST_ASSERT(is_secret(value) && value > SECRET(pmc),
			       "The victim's counter %u is 0x%lx", pmc, value);
	}
}

/* The guest's. */
static u64 turns;

static void guest_victim(enum victim_mode mode)
{
	turns_begin();
	hide_secrets();
	turn_over();
	for (;;) {
		if (mode == VICTIM_HALTS)
			wait_for_kick();
		turns++;
		check_secrets();
		if (mode != VICTIM_SPINS)
			turn_over();
	}
}

u64 victim_turns(struct kvm_vcpu *victim)
{
	sync_global_from_guest(victim->vm, turns);
	return turns;
}

struct kvm_vm *victim_create(struct kvm_vcpu **vcpu, enum victim_mode mode)
{
	struct kvm_vm *vm = pmu_vm_create(vcpu, guest_victim);

	vcpu_args_set(*vcpu, 1, mode);
	return vm;
}

/* Host: RDPMC */

static bool write_attribute(const char *value)
{
	int fd = open(RDPMC_ATTRIBUTE, O_WRONLY);
	bool written;

	if (fd < 0)
		return false;
	written = write(fd, value, 1) == 1;
	close(fd);
	return written;
}

bool grant_rdpmc(enum rdpmc_right right)
{
	return right == OWN_EVENT || write_attribute("2");
}

void drop_rdpmc(enum rdpmc_right right)
{
	if (right != OWN_EVENT)
		write_attribute("1");
}

static void add_counters(struct rdpmc_reader *reader, u32 first, unsigned int nr)
{
	while (nr--) {
		TEST_ASSERT(reader->nr < MAX_PMCS, "More counters than expected");
		reader->index[reader->nr++] = first++;
	}
}

/* An event of its own, always on: one counter's values are its own. */
static void open_own_event(struct rdpmc_reader *reader)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.config = PERF_COUNT_HW_BRANCH_INSTRUCTIONS,
		.size = sizeof(attr),
		.pinned = 1,
		.exclude_guest = 1,
	};
	u32 own;

	reader->event = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	TEST_ASSERT(reader->event >= 0, "perf_event_open() failed");
	reader->page = mmap(NULL, getpagesize(), PROT_READ, MAP_SHARED, reader->event, 0);
	TEST_ASSERT(reader->page != MAP_FAILED, "mmap() of an event failed");
	TEST_ASSERT(reader->page->cap_user_rdpmc, "perf does not allow RDPMC");

	own = READ_ONCE(reader->page->index);
	TEST_ASSERT(own, "The event has no counter");
	for (reader->own = 0; reader->index[reader->own] != own - 1; reader->own++)
		TEST_ASSERT(reader->own < reader->nr, "No counter is the event's");
}

void reader_open(struct rdpmc_reader *reader, struct attack *attack,
		 enum rdpmc_right right)
{
	unsigned int i;

	*reader = (struct rdpmc_reader) {
		.attack = attack,
		.event = -1,
		.own = MAX_PMCS,
	};
	if (host_cpu_is_intel) {
		add_counters(reader, 0, this_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS));
		add_counters(reader, vendor->fixed_rdpmc,
			     this_cpu_property(X86_PROPERTY_PMU_NR_FIXED_COUNTERS));
	} else {
		add_counters(reader, 0, this_cpu_property(X86_PROPERTY_NR_PERFCTR_CORE));
	}
	if (right == OWN_EVENT)
		open_own_event(reader);
	for (i = 0; i < reader->nr; i++)
		reader->before[i] = rdpmc(reader->index[i]);
}

void reader_close(struct rdpmc_reader *reader)
{
	if (reader->event < 0)
		return;
	munmap(reader->page, getpagesize());
	close(reader->event);
}

void reader_read(struct rdpmc_reader *reader, unsigned int rounds)
{
	unsigned int round, i;

	for (round = 0; round < rounds; round++) {
		for (i = 0; i < reader->nr; i++) {
			u64 value = rdpmc(reader->index[i]);

			if (!value || value == reader->before[i])
				continue;
			if (i != reader->own || is_secret(value))
				attack_leak(reader->attack, reader->index[i], value);
		}
	}
	reader->attack->reads += (u64)rounds * reader->nr;
}
