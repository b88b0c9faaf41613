// SPDX-License-Identifier: GPL-2.0
/*
 * Not a test: makes calls to KVM's PMU and to perf that programs say, for who
 * watches.
 *
 *	calls FILE
 *
 * A program is a line "program NUMBER" and lines "CALL ARGUMENT...", see calls[].
 * Calls may fail.  What must not happen: an exit of a guest that nobody asked for,
 * and that after a program, when all is closed, a VM is left, or the host or a new
 * guest does not count exactly.  At the end there is a line "CALL: DONE REFUSED" for
 * each call.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/perf_event.h>

#include "apic.h"
#include "migrate.h"
#include "payload.h"

#define NR_VMS		3
#define NR_EVENTS	4
#define NR_QUEUED	64
#define MAX_ARGUMENTS	6
/* Of a guest that is run step by step. */
#define MAX_STEPS	500
#define ITERATIONS	1000

/* What a guest does when it is run next. */
struct queue {
	u64 length;
	struct {
		u64 what;
		u64 number;
		u64 value;
	} instructions[NR_QUEUED];
};

enum { WRMSR, RDMSR, RDPMC, LOOP, CPUID, OUT, LVTPC };

static struct queue queue;

static struct vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	u64 capability;
	struct kvm_guest_debug debug;
	bool has_run;
	bool is_limited;
} vms[NR_VMS];

static struct event {
	int fd;
	struct perf_event_mmap_page *page;
} events[NR_EVENTS];

static bool has_watchdog;

static void loop(u64 n)
{
	asm volatile("1: dec %0\n\t"
		     "jnz 1b" : "+r"(n) :: "cc");
}

/* In the guest */

static void guest_acknowledge(void)
{
	wrmsr(vendor->global_status_clear, rdmsr(vendor->global_status));
}

static void guest_pmi(struct ex_regs *regs)
{
	guest_acknowledge();
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	x2apic_write_reg(APIC_EOI, 0);
}

static void guest_nmi(struct ex_regs *regs)
{
	u64 status;

	/* A VM without a PMU gets NMIs, too. */
	if (!rdmsr_safe(vendor->global_status, &status))
		wrmsr_safe(vendor->global_status_clear, status);
}

static void guest(void)
{
	u64 i, number, value;

	x2apic_enable();
	asm volatile("sti");
	for (;;) {
		for (i = 0; i < READ_ONCE(queue.length); i++) {
			number = queue.instructions[i].number;
			value = queue.instructions[i].value;
			switch (queue.instructions[i].what) {
			case WRMSR:
				wrmsr_safe(number, value);
				break;
			case RDMSR:
				rdmsr_safe(number, &value);
				break;
			case RDPMC:
				rdpmc_safe(number, &value);
				break;
			case LOOP:
				loop(number);
				break;
			case CPUID:
				asm volatile("cpuid" :: "a"(0), "c"(0) : "rbx", "rdx");
				break;
			case OUT:
				asm volatile("out %%al, %%dx" :: "a"(0), "d"(TEST_PORT));
				break;
			case LVTPC:
				x2apic_write_reg_safe(APIC_LVTPC, number);
				break;
			}
		}
		queue.length = 0;
		GUEST_SYNC(0);
	}
}

static void guest_count(void)
{
	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	measure_loop(counter_bit(0), ITERATIONS);
	GUEST_SYNC(pmc_read(0));
}

/* VMs. Each call returns whether it was done. */

static bool vm_create_call(const u64 *arguments)
{
	struct vm *vm = &vms[arguments[0] % NR_VMS];
	int fd;

	if (vm->vm)
		return false;
	*vm = (struct vm) { .vm = vm_create(1), .capability = arguments[1] };
	if (vm->capability && __vm_enable_cap(vm->vm, KVM_CAP_PMU_CAPABILITY, vm->capability))
		goto refused;
	/* Events of the host may be in the way of the first vCPU, which libkvm does not expect. */
	fd = __vm_ioctl(vm->vm, KVM_CREATE_VCPU, (void *)1ul);
	if (fd < 0)
		goto refused;
	vm->vcpu = vm_vcpu_add(vm->vm, 0, guest);
	close(fd);
	vm_install_exception_handler(vm->vm, PMI_VECTOR, guest_pmi);
	vm_install_exception_handler(vm->vm, NMI_VECTOR, guest_nmi);
	sync_global_to_guest(vm->vm, vendor);
	return true;
refused:
	kvm_vm_free(vm->vm);
	vm->vm = NULL;
	return false;
}

static bool vm_free_call(const u64 *arguments)
{
	struct vm *vm = &vms[arguments[0] % NR_VMS];

	if (!vm->vm)
		return false;
	kvm_vm_free(vm->vm);
	vm->vm = NULL;
	return true;
}

static struct vm *vm_of(const u64 *arguments)
{
	struct vm *vm = &vms[arguments[0] % NR_VMS];

	return vm->vm ? vm : NULL;
}

static bool run_call(const u64 *arguments)
{
	struct vm *vm = vm_of(arguments);
	struct kvm_guest_debug no_debug = {};
	unsigned int steps = 0;
	struct kvm_run *run;
	struct ucall uc;

	if (!vm)
		return false;
	vm->has_run = true;
	run = vm->vcpu->run;
	for (;;) {
		TEST_ASSERT(!__vcpu_run(vm->vcpu), "KVM_RUN: errno %d", errno);
		if (run->exit_reason == KVM_EXIT_DEBUG) {
			if (++steps == MAX_STEPS)
				vcpu_guest_debug_set(vm->vcpu, &no_debug);
			continue;
		}
		if (run->exit_reason == KVM_EXIT_IO && run->io.port == TEST_PORT)
			continue;
		/* To complete what exits is a step, which libkvm does not expect. */
		vcpu_guest_debug_set(vm->vcpu, &no_debug);
		switch (get_ucall(vm->vcpu, &uc)) {
		case UCALL_SYNC:
			vcpu_guest_debug_set(vm->vcpu, &vm->debug);
			return true;
		case UCALL_ABORT:
			REPORT_GUEST_ASSERT(uc);
			break;
		default:
			TEST_FAIL("Unexpected exit %u (%s)", run->exit_reason,
				  exit_reason_str(run->exit_reason));
		}
	}
}

static bool step_call(const u64 *arguments)
{
	struct vm *vm = vm_of(arguments);

	if (!vm)
		return false;
	vm->debug.control = arguments[1] ? KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP :
					   0;
	return !__vcpu_ioctl(vm->vcpu, KVM_SET_GUEST_DEBUG, &vm->debug);
}

static bool set_msr_call(const u64 *arguments)
{
	struct vm *vm = vm_of(arguments);

	return vm && _vcpu_set_msr(vm->vcpu, arguments[1], arguments[2]) == 1;
}

static bool get_msr_call(const u64 *arguments)
{
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entry;
	} msrs = {
		.header.nmsrs = 1,
		.entry.index = arguments[1],
	};
	struct vm *vm = vm_of(arguments);

	return vm && __vcpu_ioctl(vm->vcpu, KVM_GET_MSRS, &msrs.header) == 1;
}

/* So many general purpose counters; a guest that has run keeps those it has. */
static bool counters_call(const u64 *arguments)
{
	struct vm *vm = vm_of(arguments);

	if (!vm || vm->has_run)
		return false;
	vm->is_limited = true;
	if (host_cpu_is_intel)
		vcpu_set_cpuid_property(vm->vcpu, X86_PROPERTY_PMU_NR_GP_COUNTERS, arguments[1]);
	else
		vcpu_set_cpuid_property(vm->vcpu, X86_PROPERTY_NR_PERFCTR_CORE, arguments[1]);
	return true;
}

static bool filter_call(const u64 *arguments)
{
	struct {
		struct kvm_pmu_event_filter filter;
		u64 event;
	} one = {
		.filter = {
			.action = arguments[1],
			.nevents = 1,
			.fixed_counter_bitmap = arguments[3],
		},
		.event = arguments[2],
	};
	struct vm *vm = vm_of(arguments);

	return vm && !__vm_ioctl(vm->vm, KVM_SET_PMU_EVENT_FILTER, &one.filter);
}

static bool nmi_call(const u64 *arguments)
{
	struct vm *vm = vm_of(arguments);

	return vm && vm->has_run && !__vcpu_ioctl(vm->vcpu, KVM_NMI, NULL);
}

static bool statistics_call(const u64 *arguments)
{
	struct vm *vm = vm_of(arguments);
	char bytes[512];
	bool done;
	int fd;

	if (!vm)
		return false;
	fd = __vcpu_ioctl(vm->vcpu, KVM_GET_STATS_FD, NULL);
	if (fd < 0)
		return false;
	done = read(fd, bytes, sizeof(bytes)) > 0;
	close(fd);
	return done;
}

/* To a new VM of the same memory, as userspace migrates it. */
static bool migrate_call(const u64 *arguments)
{
	struct vm *vm = vm_of(arguments);
	unsigned int i;

	/* Else the new VM might be refused, or have another PMU. */
	if (!vm || !vm->has_run || vm->capability || vm->is_limited || has_watchdog)
		return false;
	for (i = 0; i < NR_EVENTS; i++)
		if (events[i].fd >= 0)
			return false;
	migrate(&vm->vcpu);
	/* A new vCPU is not run step by step. */
	vm->debug.control = 0;
	return true;
}

static bool queue_instruction(const u64 *arguments, u64 what)
{
	struct vm *vm = vm_of(arguments);
	struct queue *of_guest;
	u64 at;

	if (!vm)
		return false;
	of_guest = addr_gva2hva(vm->vm, (gva_t)&queue);
	at = of_guest->length;
	if (at == NR_QUEUED)
		return false;
	of_guest->instructions[at].what = what;
	of_guest->instructions[at].number = arguments[1];
	of_guest->instructions[at].value = arguments[2];
	of_guest->length++;
	return true;
}

static bool guest_wrmsr_call(const u64 *arguments)
{
	return queue_instruction(arguments, WRMSR);
}

static bool guest_rdmsr_call(const u64 *arguments)
{
	return queue_instruction(arguments, RDMSR);
}

static bool guest_rdpmc_call(const u64 *arguments)
{
	return queue_instruction(arguments, RDPMC);
}

static bool guest_loop_call(const u64 *arguments)
{
	return arguments[1] && queue_instruction(arguments, LOOP);
}

static bool guest_cpuid_call(const u64 *arguments)
{
	return queue_instruction(arguments, CPUID);
}

static bool guest_out_call(const u64 *arguments)
{
	return queue_instruction(arguments, OUT);
}

static bool guest_lvtpc_call(const u64 *arguments)
{
	return queue_instruction(arguments, LVTPC);
}

/* Events of the host */

/* EVENT TARGET CONFIG PERIOD FLAGS; the target is a CPU, or -1: this thread. */
static bool open_call(const u64 *arguments)
{
	struct event *event = &events[arguments[0] % NR_EVENTS];
	u64 flags = arguments[4];
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(attr),
		.config = arguments[2],
		.sample_period = arguments[3],
		.exclude_user = flags & 1,
		.exclude_kernel = flags >> 1 & 1,
		.exclude_guest = flags >> 2 & 1,
		.exclude_host = flags >> 3 & 1,
		.pinned = flags >> 4 & 1,
		.disabled = flags >> 5 & 1,
	};
	int cpu = (int)arguments[1];
	void *page;

	if (event->fd >= 0)
		return false;
	event->fd = syscall(SYS_perf_event_open, &attr, cpu < 0 ? 0 : -1, cpu, -1, 0);
	if (event->fd < 0)
		return false;
	/* With it this task may use RDPMC. */
	page = mmap(NULL, getpagesize(), PROT_READ, MAP_SHARED, event->fd, 0);
	event->page = page == MAP_FAILED ? NULL : page;
	return true;
}

static bool close_call(const u64 *arguments)
{
	struct event *event = &events[arguments[0] % NR_EVENTS];

	if (event->fd < 0)
		return false;
	if (event->page)
		munmap(event->page, getpagesize());
	close(event->fd);
	event->fd = -1;
	event->page = NULL;
	return true;
}

static bool control_event(const u64 *arguments, unsigned long request)
{
	struct event *event = &events[arguments[0] % NR_EVENTS];

	return event->fd >= 0 && !ioctl(event->fd, request, 0);
}

static bool enable_call(const u64 *arguments)
{
	return control_event(arguments, PERF_EVENT_IOC_ENABLE);
}

static bool disable_call(const u64 *arguments)
{
	return control_event(arguments, PERF_EVENT_IOC_DISABLE);
}

static bool reset_call(const u64 *arguments)
{
	return control_event(arguments, PERF_EVENT_IOC_RESET);
}

static bool read_call(const u64 *arguments)
{
	struct event *event = &events[arguments[0] % NR_EVENTS];
	u64 count;

	return event->fd >= 0 && read(event->fd, &count, sizeof(count)) == sizeof(count);
}

/* The rest of the host */

static bool cpu_call(const u64 *arguments)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(arguments[0], &cpus);
	return !sched_setaffinity(0, sizeof(cpus), &cpus);
}

static bool work_call(const u64 *arguments)
{
	loop(arguments[0] + 1);
	return true;
}

/* Another task runs. */
static bool task_call(const u64 *arguments)
{
	pid_t child = fork();
	int status;

	TEST_ASSERT(child >= 0, "Cannot fork");
	if (!child) {
		loop(1000);
		_exit(0);
	}
	TEST_ASSERT(waitpid(child, &status, 0) == child && !status, "The child has to end");
	return true;
}

static bool write_file(const char *path, u64 value)
{
	int fd = open(path, O_WRONLY);
	bool done = false;

	if (fd >= 0) {
		done = dprintf(fd, "%lu", value) > 0;
		close(fd);
	}
	return done;
}

static bool watchdog_call(const u64 *arguments)
{
	if (!write_file("/proc/sys/kernel/nmi_watchdog", arguments[0]))
		return false;
	has_watchdog = arguments[0];
	return true;
}

static bool online_call(const u64 *arguments)
{
	return write_file("/sys/devices/system/cpu/cpu1/online", arguments[0]);
}

/* Who may use RDPMC: 0 nobody, 1 who has an event, 2 everybody. */
static bool user_rdpmc_call(const u64 *arguments)
{
	return write_file("/sys/bus/event_source/devices/cpu/rdpmc", arguments[0]);
}

static struct call {
	const char *name;
	unsigned int nr_arguments;
	bool (*make)(const u64 *arguments);
	u64 done, refused;
} calls[] = {
	/* VM and: KVM_PMU_CAP_*; MSR and value; number; action, event and fixed counters. */
	{ "vm", 2, vm_create_call },
	{ "free", 1, vm_free_call },
	{ "run", 1, run_call },
	{ "step", 2, step_call },
	{ "set-msr", 3, set_msr_call },
	{ "get-msr", 2, get_msr_call },
	{ "counters", 2, counters_call },
	{ "filter", 4, filter_call },
	{ "nmi", 1, nmi_call },
	{ "statistics", 1, statistics_call },
	{ "migrate", 1, migrate_call },
	{ "guest-wrmsr", 3, guest_wrmsr_call },
	{ "guest-rdmsr", 2, guest_rdmsr_call },
	{ "guest-rdpmc", 2, guest_rdpmc_call },
	{ "guest-loop", 2, guest_loop_call },
	{ "guest-cpuid", 1, guest_cpuid_call },
	{ "guest-out", 1, guest_out_call },
	{ "guest-lvtpc", 2, guest_lvtpc_call },
	/* Event and what open_call() says. */
	{ "open", 5, open_call },
	{ "close", 1, close_call },
	{ "enable", 1, enable_call },
	{ "disable", 1, disable_call },
	{ "reset", 1, reset_call },
	{ "read", 1, read_call },
	/* A number. */
	{ "cpu", 1, cpu_call },
	{ "work", 1, work_call },
	{ "task", 0, task_call },
	{ "watchdog", 1, watchdog_call },
	{ "online", 1, online_call },
	{ "user-rdpmc", 1, user_rdpmc_call },
};

/* What there has to be after each program. */

static unsigned int vms_left(void)
{
	struct dirent *entry;
	unsigned int left = 0;
	unsigned long n;
	int pid;
	DIR *dir;

	/* KVM's C code has none. */
	dir = opendir("/sys/kernel/debug/mvpmu");
	if (!dir)
		return 0;
	while ((entry = readdir(dir)))
		left += sscanf(entry->d_name, "%d-%lu", &pid, &n) == 2;
	closedir(dir);
	return left;
}

/* What an event of this thread counts in user mode while that loops. */
static u64 host_count(int fd, u64 n)
{
	u64 before, after;

	TEST_ASSERT(read(fd, &before, sizeof(before)) == sizeof(before), "Cannot read the event");
	loop(n);
	TEST_ASSERT(read(fd, &after, sizeof(after)) == sizeof(after), "Cannot read the event");
	return after - before;
}

static void check_host(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.exclude_kernel = 1,
		.exclude_guest = 1,
		.pinned = 1,
	};
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	u64 once, twice;

	TEST_ASSERT(fd >= 0, "The host cannot open an event: errno %d", errno);
	/* Pages come now. */
	host_count(fd, 1);
	once = host_count(fd, ITERATIONS);
	twice = host_count(fd, 2 * ITERATIONS);
	TEST_ASSERT(twice - once == 2 * ITERATIONS, "The host counts %lu more, not %u",
		    twice - once, 2 * ITERATIONS);
	close(fd);
}

static void check_guest(void)
{
	u64 count, expected = 1 + 2 * ITERATIONS + MEASURE_INSTRUCTIONS;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	vm = pmu_vm_create(&vcpu, guest_count);
	TEST_ASSERT(run_guest(vcpu, &count), "The guest has to count");
	TEST_ASSERT(count == expected, "A new guest counts %lu, not %lu", count, expected);
	kvm_vm_free(vm);
}

static void end_program(void)
{
	unsigned int left;
	u64 i;

	for (i = 0; i < NR_VMS; i++)
		vm_free_call(&i);
	for (i = 0; i < NR_EVENTS; i++)
		close_call(&i);
	watchdog_call(&(u64){ 0 });
	has_watchdog = false;
	online_call(&(u64){ 1 });
	user_rdpmc_call(&(u64){ 1 });
	TEST_ASSERT(cpu_call(&(u64){ 0 }), "Cannot run on CPU 0");

	left = vms_left();
	TEST_ASSERT(!left, "%u VMs are left", left);
	check_host();
	check_guest();
}

static void make_call(char *line)
{
	u64 arguments[MAX_ARGUMENTS] = {};
	char *word = strsep(&line, " ");
	unsigned int i, n;

	for (i = 0; i < ARRAY_SIZE(calls) && strcmp(word, calls[i].name); i++)
		;
	TEST_ASSERT(i < ARRAY_SIZE(calls), "There is no call %s", word);
	for (n = 0; n < MAX_ARGUMENTS && (word = strsep(&line, " ")); n++)
		arguments[n] = strtoull(word, NULL, 0);
	TEST_ASSERT(n == calls[i].nr_arguments && !line, "%s takes %u arguments",
		    calls[i].name, calls[i].nr_arguments);
	if (calls[i].make(arguments))
		calls[i].done++;
	else
		calls[i].refused++;
}

int main(int argc, char *argv[])
{
	const char *missing = pmu_missing();
	bool in_program = false;
	char line[128];
	unsigned int i;
	FILE *file;

	TEST_ASSERT(argc == 2, "calls FILE");
	TEST_ASSERT(!missing, "%s", missing);
	file = fopen(argv[1], "r");
	TEST_ASSERT(file, "Cannot open %s", argv[1]);
	for (i = 0; i < NR_EVENTS; i++)
		events[i].fd = -1;

	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = 0;
		if (strncmp(line, "program ", strlen("program "))) {
			make_call(line);
			continue;
		}
		if (in_program)
			end_program();
		in_program = true;
		puts(line);
		fflush(stdout);
	}
	end_program();
	puts("all programs");
	fclose(file);
	for (i = 0; i < ARRAY_SIZE(calls); i++)
		printf("%s: %lu %lu\n", calls[i].name, calls[i].done, calls[i].refused);
	return EXIT_SUCCESS;
}
