// SPDX-License-Identifier: GPL-2.0
/*
 * sweep [event] [waiter] [in NAME...]: a short run of a guest that counts, for the Intel test machine to inject
 * events into, one at each instruction of the kernel (see its option --sweep).  The machine is told
 * by CPUID where the run begins and ends, and what came of it: that must always be the same.
 *
 * The guest does what has the PMU switched: exits to the kernel and to user mode, overflows, writes
 * of selectors that are intercepted, accesses that KVM emulates.
 *
 *   event	the host counts this thread, outside guests
 *   waiter	a real-time task waits for a byte at the serial port, and then counts the CPU
 *   in NAME	only in this function of the kernel, or in those of this module: [MODULE]
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include <linux/perf_event.h>

#include "apic.h"
#include "payload.h"

#define APIC_LVTPC	0x340	/* not in apic.h */
#define PMI_VECTOR	0x51
#define NR_LOOPS	100
#define PERIOD		50

/* CPUID of the test machine: what ECX says. */
#define MACHINE_LEAF	0x4d767075
#define SWEEP_BEGIN	0x100
#define SWEEP_END	0x101
#define SWEEP_RESULT	0x102
#define SWEEP_PLACE	0x103

static const struct payload loop = PAYLOAD_LOOP;

/* What the guest has counted. */
static u64 instructions, overflowed, across_exits, across_exits_fixed;
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
	const unsigned int fixed = shape.nr_gp;
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
	pmc_program(fixed, INSTRUCTIONS, PMC_COUNT, 0);
	wrmsr(vendor->global_control, counter_bit(0) | counter_bit(fixed));
	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	asm volatile("outb %%al, %w0" : : "d"(TEST_PORT));
	wrmsr(vendor->global_control, 0);
	across_exits = pmc_read(0);
	across_exits_fixed = pmc_read(fixed);

	wrmsr(selector_msr(0), 0);
	wrmsr(selector_msr(1), 0);
	wrmsr(vendor->fixed_control, 0);
	asm volatile("sti");
}

static void guest_code(void)
{
	x2apic_enable();
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	pmu_reset();
	/* The first time touches the pages. */
	guest_once();
	nr_pmis = 0;
	GUEST_SYNC(0);
	guest_once();
	GUEST_DONE();
}

static inline void tell_both(u32 what, u64 value, u64 second)
{
	u32 eax = MACHINE_LEAF;

	asm volatile("cpuid" : "+a"(eax), "+b"(value), "+c"(what), "+d"(second) : : "memory");
}

static inline void tell(u32 what, u64 value)
{
	tell_both(what, value, 0);
}

/* What @name stands for: where the first function begins, and where the last one does. */
static void tell_place(const char *name)
{
	u64 address, first = ~0ul, last = 0;
	char symbol[512], module[64];
	char line[1024];
	FILE *from;

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
	tell_both(SWEEP_PLACE, first, last + 1);
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

static void wait_for_a_byte(void)
{
	struct sched_param first = { .sched_priority = 50 };
	struct termios mode;
	int tty, fd;
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	tty = open("/dev/ttyS0", O_RDONLY | O_NOCTTY);
	TEST_ASSERT(tty >= 0, "There is a serial port");
	tcgetattr(tty, &mode);
	cfmakeraw(&mode);
	tcsetattr(tty, TCSANOW, &mode);
	sched_setscheduler(0, SCHED_FIFO, &first);
	for (;;) {
		if (read(tty, &byte, 1) != 1)
			continue;
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

int main(int argc, char **argv)
{
	struct kvm_vcpu *vcpu;
	const char *missing;
	struct kvm_vm *vm;
	struct sched_param last = {};
	int event = -1;
	pid_t waiter = 0;
	int i;

	missing = pmu_missing();
	__TEST_REQUIRE(!missing, "%s", missing);

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "event")) {
			event = count(0, -1, true);
		} else if (!strcmp(argv[i], "waiter")) {
			waiter = fork();
			TEST_ASSERT(waiter >= 0, "fork");
			if (!waiter)
				wait_for_a_byte();
			/* Preempted at once, also by the kernel's thread that has the byte. */
			TEST_ASSERT(!sched_setscheduler(0, SCHED_IDLE, &last), "SCHED_IDLE");
			/* Until it waits. */
			usleep(10000);
		} else if (!strcmp(argv[i], "in")) {
			while (++i < argc)
				tell_place(argv[i]);
		}
	}

	vm = pmu_vm_create(&vcpu, guest_code);
	vm_install_exception_handler(vm, PMI_VECTOR, guest_pmi);
	run_guest(vcpu, NULL);

	tell(SWEEP_BEGIN, 0);
	if (event >= 0)
		ioctl(event, PERF_EVENT_IOC_ENABLE, 0);
	while (run_guest_io(&vcpu, NULL, set_filter, NULL))
		;
	if (event >= 0)
		ioctl(event, PERF_EVENT_IOC_DISABLE, 0);
	sync_global_from_guest(vm, instructions);
	sync_global_from_guest(vm, overflowed);
	sync_global_from_guest(vm, across_exits);
	sync_global_from_guest(vm, across_exits_fixed);
	sync_global_from_guest(vm, nr_pmis);
	tell(SWEEP_RESULT, instructions);
	tell(SWEEP_RESULT, overflowed);
	tell(SWEEP_RESULT, across_exits);
	tell(SWEEP_RESULT, across_exits_fixed);
	tell(SWEEP_RESULT, nr_pmis);
	if (event >= 0)
		tell(SWEEP_RESULT, read_count(event));
	tell(SWEEP_END, 0);

	TEST_ASSERT_EQ(instructions, payload_count(&loop, INSTRUCTIONS, NR_LOOPS));
	TEST_ASSERT_EQ(overflowed, payload_count(&loop, BRANCHES, NR_LOOPS) - PERIOD);
	TEST_ASSERT_EQ(across_exits_fixed, across_exits);
	TEST_ASSERT_EQ(nr_pmis, 1);
	if (waiter)
		kill(waiter, SIGKILL);
	kvm_vm_free(vm);
	return 0;
}
