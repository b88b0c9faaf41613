// SPDX-License-Identifier: GPL-2.0
/*
 * sweep [event] [waiter] [KIND...] [every=N] [times=N] [in NAME...]: a short run of a guest that
 * counts, for a test machine to inject events into, one at each instruction of the kernel.  The
 * machine is told by CPUID where the run begins and ends, and what came of it: that must always be
 * the same.
 *
 * The Intel machine repeats the run itself (see its option --sweep).  For the AMD machine it is
 * repeated here (see qemu-pmu/src/sweep.rs), until no instruction is left.
 *
 * The guest does what has the PMU switched: exits to the kernel and to user mode, overflows, writes
 * of selectors that are intercepted, accesses that KVM emulates.
 *
 *   event	the host counts this thread, outside guests
 *   waiter	a real-time task waits for a byte at the serial port, and then counts the CPU
 *   KIND	repeat it here, with an NMI (nmi), a late PMI (pmi), the interrupt of the local
 *		APIC's timer (timer) or of a byte at the serial port (byte)
 *   every=N	of the instructions only each Nth (1)
 *   times=N	of each only the first N times that a run executes it (all)
 *   in NAME	only in this function of the kernel, or in those of this module: [MODULE]
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include <linux/perf_event.h>

#include "apic.h"
#include "payload.h"

#define NR_LOOPS	100
#define PERIOD		50

/* CPUID of the test machine: what ECX says. */
#define MACHINE_LEAF	0x4d767075
#define SWEEP_BEGIN	0x100
#define SWEEP_END	0x101
#define SWEEP_RESULT	0x102
#define SWEEP_PLACE	0x103
#define SWEEP_MISSED	0x104

/* Their numbers. */
static const char *const kinds[] = { "nmi", "pmi", "timer", "byte" };
#define BYTE		3
/* So many failures are told in full. */
#define NR_TOLD		10

static const struct payload loop = PAYLOAD_LOOP;

/* What the guest has counted. */
static u64 instructions, overflowed, across_exits, across_exits_other;
static u64 nr_pmis;

/* A PMI without an overflow is none of the guest's doing: it may be injected. */
static void guest_pmi(struct ex_regs *regs)
{
	u64 status = rdmsr(vendor->global_status);

	if (status)
		nr_pmis++;
	wrmsr(vendor->global_status_clear, status);
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	x2apic_write_reg(APIC_EOI, 0);
}

/*
 * Interrupts wait while something counts: the handler of a PMI that was injected would be counted
 * with it.
 */
static void guest_once(void)
{
	/* A fixed counter where there are some. */
	const unsigned int other = shape.nr_fixed ? shape.nr_gp : 2;
	u32 eax = 0, ebx, ecx = 0, edx;

	asm volatile("cli");
	/* No exit but for interrupts of the host. */
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	pmc_program(1, BRANCHES, PMC_COUNT | PMC_PMI, overflow_in(PERIOD));
	loop.measure(counter_bit(0) | counter_bit(1), NR_LOOPS);
	instructions = pmc_read(0);
	overflowed = pmc_read(1);
	asm volatile("sti; nop; cli");

	/* Exits in between that stay in the kernel, and that do not. */
	wrmsr(counter_msr(0), 0);
	pmc_program(other, INSTRUCTIONS, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(0) | counter_bit(other));
	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	asm volatile("outb %%al, %w0" : : "d"(TEST_PORT));
	wrmsr(vendor->global_control, 0);
	across_exits = pmc_read(0);
	across_exits_other = pmc_read(other);

	wrmsr(selector_msr(0), 0);
	wrmsr(selector_msr(1), 0);
	if (shape.nr_fixed)
		wrmsr(vendor->fixed_control, 0);
	else
		wrmsr(selector_msr(other), 0);
	asm volatile("sti");
}

static void guest_code(void)
{
	x2apic_enable();
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	pmu_reset();
	for (;;) {
		nr_pmis = 0;
		guest_once();
		GUEST_SYNC(0);
	}
}

/* False if it has no answer. */
static inline bool ask(u32 what, u64 value, u64 second, u64 *answer)
{
	u32 eax = MACHINE_LEAF;

	asm volatile("cpuid" : "+a"(eax), "+b"(value), "+c"(what), "+d"(second) : : "memory");
	*answer = eax | second << 32;
	return what == 1;
}

static inline void tell(u32 what, u64 value)
{
	u64 none;

	ask(what, value, 0, &none);
}

/* What @name stands for: where the first function begins, and where the last one does. */
static void tell_place(const char *name)
{
	u64 address, first = ~0ul, last = 0;
	char symbol[512], module[64];
	char line[1024];
	FILE *from;
	u64 none;

	from = fopen("/proc/kallsyms", "r");
	TEST_ASSERT(from, "There are symbols");
	while (fgets(line, sizeof(line), from)) {
		module[0] = 0;
		if (sscanf(line, "%lx %*c %511s %63s", &address, symbol, module) < 2 ||
		    strcmp(name, name[0] == '[' ? module : symbol))
			continue;
		first = first < address ? first : address;
		last = last > address ? last : address;
	}
	fclose(from);
	TEST_ASSERT(last, "There is %s", name);
	TEST_ASSERT(name[0] == '[' || first == last, "There is one %s", name);
	ask(SWEEP_PLACE, first, last + 1, &none);
}

static int count(pid_t pid, int cpu, bool user_only)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.size = sizeof(attr),
		.disabled = 1,
		.pinned = 1,
		.exclude_kernel = user_only,
		.exclude_guest = 1,
	};
	int fd = syscall(SYS_perf_event_open, &attr, pid, cpu, -1, 0);

	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("perf_event_open", fd));
	return fd;
}

static u64 read_count(int fd)
{
	u64 value;

	TEST_ASSERT(read(fd, &value, sizeof(value)) == sizeof(value), "An event that counts");
	return value;
}

static void on_signal(int signal)
{
}

/* Counts in *@nr_bytes what has come; a signal lets the event go. */
static void wait_for_a_byte(u64 *nr_bytes)
{
	struct sigaction interrupts = { .sa_handler = on_signal };
	struct sched_param first = { .sched_priority = 50 };
	struct termios mode;
	int tty, fd = -1;
	char byte;

	sigaction(SIGUSR1, &interrupts, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	tty = open("/dev/ttyS0", O_RDONLY | O_NOCTTY);
	TEST_ASSERT(tty >= 0, "There is a serial port");
	tcgetattr(tty, &mode);
	cfmakeraw(&mode);
	tcsetattr(tty, TCSANOW, &mode);
	sched_setscheduler(0, SCHED_FIFO, &first);
	for (;;) {
		if (read(tty, &byte, 1) != 1) {
			close(fd);
			fd = -1;
			continue;
		}
		WRITE_ONCE(*nr_bytes, *nr_bytes + 1);
		fd = count(-1, 0, false);
		ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
		TEST_ASSERT(read_count(fd), "The event counts");
		close(fd);
		fd = count(-1, 0, false);
		ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
	}
}

/* Another event filter, which denies nothing: KVM decides anew what it intercepts. */
static void set_filter(struct kvm_vcpu **vcpu, unsigned int nr, void *data)
{
	struct kvm_pmu_event_filter none = { .action = KVM_PMU_EVENT_DENY };

	vm_ioctl((*vcpu)->vm, KVM_SET_PMU_EVENT_FILTER, &none);
}

static struct kvm_vcpu *vcpu;

/* The host's own event, of this thread. */
static int event = -1;
static pid_t waiter;
/* Those that the waiter has got. */
static u64 *nr_bytes;

/* What a run shows. */
static u64 *const counted[] = {
	&instructions, &overflowed, &across_exits, &across_exits_other, &nr_pmis,
};

struct shown {
	u64 counted[ARRAY_SIZE(counted)];
	u64 event;
};

static void run_once(struct shown *shown)
{
	unsigned int i;
	u64 before = 0;

	if (event >= 0) {
		before = read_count(event);
		ioctl(event, PERF_EVENT_IOC_ENABLE, 0);
	}
	run_guest_io(&vcpu, NULL, set_filter, NULL);
	if (event >= 0)
		ioctl(event, PERF_EVENT_IOC_DISABLE, 0);
	for (i = 0; i < ARRAY_SIZE(counted); i++) {
		sync_global_from_guest(vcpu->vm, *counted[i]);
		shown->counted[i] = *counted[i];
	}
	shown->event = event >= 0 ? read_count(event) - before : 0;
}

static void run_is_right(void)
{
	TEST_ASSERT_EQ(instructions, payload_count(&loop, INSTRUCTIONS, NR_LOOPS));
	TEST_ASSERT_EQ(overflowed, payload_count(&loop, BRANCHES, NR_LOOPS) - PERIOD);
	TEST_ASSERT_EQ(across_exits_other, across_exits);
	TEST_ASSERT_EQ(nr_pmis, 1);
}

/* The machine repeats the run. */
static void swept_by_machine(void)
{
	struct shown shown;
	unsigned int i;

	tell(SWEEP_BEGIN, 0);
	run_once(&shown);
	for (i = 0; i < ARRAY_SIZE(counted); i++)
		tell(SWEEP_RESULT, shown.counted[i]);
	if (event >= 0)
		tell(SWEEP_RESULT, shown.event);
	tell(SWEEP_END, 0);
	run_is_right();
}

/* After an interrupt before the instruction at @at. */
static bool same(const struct shown *shown, const struct shown *expected, bool tell_it,
		 const char *kind, u64 at)
{
	unsigned int i;

	if (!memcmp(shown, expected, sizeof(*shown)))
		return true;
	if (!tell_it)
		return false;
	printf("sweep: failed: %s before %#018lx\n", kind, at);
	for (i = 0; i < ARRAY_SIZE(counted); i++)
		printf("sweep:   result: %lu for %lu\n", shown->counted[i], expected->counted[i]);
	printf("sweep:   event: %lu for %lu\n", shown->event, expected->event);
	return false;
}

/*
 * Repeats it with interrupts of this kind, one in each run.  Returns how many have failed.
 *
 * Each byte has to have come: who waits for it has the thread of the vCPU wait.
 */
static u64 repeated_with(unsigned int kind, u64 every, u64 times, u64 *nr)
{
	struct shown expected, shown;
	u64 at, bytes, failed = 0;

	ask(SWEEP_BEGIN, 0, kind, &at);
	run_once(&expected);
	run_is_right();
	ask(SWEEP_END, 0, 0, &at);
	for (;; ++*nr) {
		bytes = waiter ? READ_ONCE(*nr_bytes) : 0;
		ask(SWEEP_BEGIN, times << 32 | every, kind, &at);
		run_once(&shown);
		if (!ask(SWEEP_END, 0, 0, &at))
			return failed;
		failed += !same(&shown, &expected, failed < NR_TOLD, kinds[kind], at);
		if (waiter && kind == BYTE) {
			TEST_ASSERT_EQ(READ_ONCE(*nr_bytes), bytes + 1);
			kill(waiter, SIGUSR1);
		}
	}
}

static u64 repeated(unsigned int which, u64 every, u64 times)
{
	u64 nr = 0, failed = 0, missed;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (which & 1u << i)
			failed += repeated_with(i, every, times, &nr);
	}
	if (ask(SWEEP_MISSED, 0, 0, &missed)) {
		printf("sweep: failed: nothing has run at %#018lx\n", missed);
		failed++;
	}
	printf("sweep: %lu cases, %lu failed\n", nr, failed);
	return failed;
}

int main(int argc, char **argv)
{
	struct sched_param last = {};
	unsigned int which = 0, i;
	u64 every = 1, times = ~0u, failed = 0;
	const char *missing;
	struct kvm_vm *vm;
	int arg;

	missing = pmu_missing();
	__TEST_REQUIRE(!missing, "%s", missing);

	for (arg = 1; arg < argc; arg++) {
		for (i = 0; i < ARRAY_SIZE(kinds); i++)
			which |= !strcmp(argv[arg], kinds[i]) << i;
		if (!strncmp(argv[arg], "every=", 6)) {
			every = strtoul(argv[arg] + 6, NULL, 0);
		} else if (!strncmp(argv[arg], "times=", 6)) {
			times = strtoul(argv[arg] + 6, NULL, 0);
		} else if (!strcmp(argv[arg], "event")) {
			event = count(0, -1, true);
		} else if (!strcmp(argv[arg], "waiter")) {
			nr_bytes = mmap(NULL, sizeof(*nr_bytes), PROT_READ | PROT_WRITE,
					MAP_SHARED | MAP_ANONYMOUS, -1, 0);
			TEST_ASSERT(nr_bytes != MAP_FAILED, "mmap");
			waiter = fork();
			TEST_ASSERT(waiter >= 0, "fork");
			if (!waiter)
				wait_for_a_byte(nr_bytes);
			/* Preempted at once, also by the kernel's thread that has the byte. */
			TEST_ASSERT(!sched_setscheduler(0, SCHED_IDLE, &last), "SCHED_IDLE");
			/* Until it waits. */
			usleep(10000);
		} else if (!strcmp(argv[arg], "in")) {
			while (++arg < argc)
				tell_place(argv[arg]);
		}
	}

	vm = pmu_vm_create(&vcpu, guest_code);
	vm_install_exception_handler(vm, PMI_VECTOR, guest_pmi);
	/* The first time touches the pages. */
	run_guest(vcpu, NULL);

	if (which)
		failed = repeated(which, every, times);
	else
		swept_by_machine();

	if (waiter)
		kill(waiter, SIGKILL);
	kvm_vm_free(vm);
	return !!failed;
}
