// SPDX-License-Identifier: GPL-2.0
/*
 * The branches that perf samples are those that were executed: each stack is a path that the program
 * can take.
 *
 * The comment above a test names a change to the machine that makes it fail.
 */
#define _GNU_SOURCE
#include <err.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tap.h"
#include "vendor.h"

#define RING_PAGES	4096
/* Within it the rarest kind of branches fills a stack. */
#define PERIOD		1153
#define USER_ANY	(PERF_SAMPLE_BRANCH_USER | PERF_SAMPLE_BRANCH_ANY)
#define ALL		(PERF_SAMPLE_BRANCH_KERNEL | USER_ANY)

/* What the stack has. */
static unsigned long entries;

/* The loop, two rounds of which are one path. */
extern char head[], call[], after[], even_jump[], even[], jump[], back[], call_ind[], again[], func[],
	func_jump[], ret[];

static __attribute__((noinline)) void loop(uint64_t rounds)
{
	asm volatile("head: dec %0; jz 1f; call: call func;"
		     "after: test $1, %b0; even_jump: jz even; nop;"
		     "even: lea back(%%rip), %%rax; jump: jmp *%%rax; nop;"
		     "back: lea func(%%rip), %%rax; call_ind: call *%%rax;"
		     "again: jmp head;"
		     "func: nop; func_jump: jmp ret; nop; ret: ret;"
		     "1:"
		     : "+r"(rounds) : : "rax", "cc", "memory");
}

struct branch {
	const char *from, *to;
	/* Which of PERF_SAMPLE_BRANCH_* sample it, beside ANY. */
	uint64_t kinds;
	bool mispredicted;
};

#define CALLS		PERF_SAMPLE_BRANCH_ANY_CALL

static const struct branch path[] = {
	{ call, func, CALLS | PERF_SAMPLE_BRANCH_CALL, false },
	{ func_jump, ret, 0, false },
	{ ret, after, PERF_SAMPLE_BRANCH_ANY_RETURN, false },
	{ jump, back, PERF_SAMPLE_BRANCH_IND_JUMP, true },
	{ call_ind, func, CALLS | PERF_SAMPLE_BRANCH_IND_CALL, true },
	{ func_jump, ret, 0, false },
	{ ret, again, PERF_SAMPLE_BRANCH_ANY_RETURN, false },
	{ again, head, 0, false },
	/* An even round. */
	{ call, func, CALLS | PERF_SAMPLE_BRANCH_CALL, false },
	{ func_jump, ret, 0, false },
	{ ret, after, PERF_SAMPLE_BRANCH_ANY_RETURN, false },
	{ even_jump, even, PERF_SAMPLE_BRANCH_COND, false },
	{ jump, back, PERF_SAMPLE_BRANCH_IND_JUMP, true },
	{ call_ind, func, CALLS | PERF_SAMPLE_BRANCH_IND_CALL, true },
	{ func_jump, ret, 0, false },
	{ ret, again, PERF_SAMPLE_BRANCH_ANY_RETURN, false },
	{ again, head, 0, false },
};
#define PATH	((int)(sizeof(path) / sizeof(path[0])))

/* A sample: where, and what led there, the newest branch first. */
struct sample {
	struct perf_event_header header;
	uint64_t ip, n;
	struct perf_branch_entry branches[];
};

/* Of which of the branches of the path this is an entry. */
static bool is_branch(const struct perf_branch_entry *entry, const struct branch *branch)
{
	return entry->from == (uint64_t)branch->from && entry->to == (uint64_t)branch->to &&
	       entry->mispred == branch->mispredicted && entry->predicted == !branch->mispredicted;
}

/* Whether the stack is a part of the path, if only branches of these kinds are on it. */
static bool is_on_path(const struct sample *sample, uint64_t kinds)
{
	for (int end = 0; end < PATH; end++) {
		int at = end;
		uint64_t n = 0;

		if (!(path[end].kinds & kinds) && kinds)
			continue;
		while (n < sample->n && is_branch(&sample->branches[n], &path[at])) {
			n++;
			do
				at = (at + PATH - 1) % PATH;
			while (kinds && !(path[at].kinds & kinds));
		}
		if (n == sample->n)
			return true;
	}
	return false;
}

/* Whether no branch is taken from where the newest one has led to where the sample was taken. */
static bool is_there(const struct sample *sample)
{
	for (int i = 0; i < PATH; i++)
		if (is_branch(&sample->branches[0], &path[i])) {
			const struct branch *next = &path[(i + 1) % PATH];

			if (sample->ip >= (uint64_t)path[i].to && sample->ip <= (uint64_t)next->from)
				return true;
		}
	return false;
}

static bool is_kernel(uint64_t address)
{
	return address >> 63;
}

/* Where the kernel is entered by interrupts and exceptions, as far as there is room. */
static uint64_t entry_points[256];
static int n_entry_points;

static void find_entry_points(void)
{
	FILE *symbols = fopen("/proc/kallsyms", "r");
	uint64_t address;
	char name[512];

	if (!symbols)
		err(1, "/proc/kallsyms");
	while (fscanf(symbols, "%lx %*c %511s%*[^\n]", &address, name) == 2)
		if (!strncmp(name, "asm_", 4) && n_entry_points < 256)
			entry_points[n_entry_points++] = address;
	fclose(symbols);
}

static bool is_in_entry(uint64_t address)
{
	for (int i = 0; i < n_entry_points; i++)
		if (address - entry_points[i] < 128)
			return true;
	return false;
}

/*
 * Whether each branch begins behind where the one before has led, with no jump in between; on Intel, where a
 * PMI comes at once, the sample of a program, too. (In the kernel it can be one instruction behind the branches,
 * which freeze when the PMI is requested: STI holds it back, and the instruction behind that can be a jump.) There
 * perf drops interrupts that come in the kernel: they are no branch instructions.
 */
static bool is_continuous(const struct sample *sample)
{
	for (uint64_t n = is_intel() && !is_kernel(sample->ip) ? 0 : 1; n < sample->n; n++) {
		uint64_t from = n ? sample->branches[n - 1].from : sample->ip, to = sample->branches[n].to;
		bool dropped = is_intel() && is_kernel(to) && is_in_entry(from);

		if (from - to > 4096 && !dropped)
			return false;
	}
	return true;
}

/* Functions that call each other, the last one in two ways. */
extern char outer[], outer_call[], outer_end[], middle[], middle_call[], middle_call_ind[], middle_end[],
	leaf[], leaf_end[];

asm(".type outer, @function; .type middle, @function; .type leaf, @function;"
    "outer: nop; outer_call: call middle; nop; ret; outer_end: .size outer, . - outer;"
    "middle: lea leaf(%rip), %rax; middle_call: call leaf; nop; middle_call_ind: call *%rax; ret;"
    "middle_end: .size middle, . - middle;"
    "leaf: nop; nop; ret; leaf_end: .size leaf, . - leaf;");

static __attribute__((noinline)) void calls(uint64_t rounds)
{
	asm volatile("1: call outer; dec %0; jnz 1b" : "+r"(rounds) : : "rax", "cc", "memory");
}

static bool is_within(uint64_t ip, const char *from, const char *to)
{
	return ip >= (uint64_t)from && ip < (uint64_t)to;
}

static bool is_call(const struct perf_branch_entry *entry, const char *from, const char *to)
{
	return entry->from == (uint64_t)from && entry->to == (uint64_t)to;
}

/* How many of them have not returned. */
static int depth_of_calls(const struct sample *sample)
{
	if (is_within(sample->ip, outer, outer_end))
		return 1;
	if (is_within(sample->ip, middle, middle_end))
		return 2;
	return is_within(sample->ip, leaf, leaf_end) ? 3 : 0;
}

/* Whether the stack has exactly the calls that have not returned, from where `calls` was called on. */
static bool is_call_stack(const struct sample *sample)
{
	const struct perf_branch_entry *entry = sample->branches;
	int depth = depth_of_calls(sample);

	if (!depth || sample->n != (uint64_t)depth + 1)
		return false;
	if (depth == 3) {
		if (!is_call(entry, middle_call, leaf) && !is_call(entry, middle_call_ind, leaf))
			return false;
		entry++;
	}
	if (depth >= 2 && !is_call(entry++, outer_call, middle))
		return false;
	return entry[0].to == (uint64_t)outer && entry[1].to == (uint64_t)calls;
}

struct samples {
	unsigned long all;
	/* Of these: with all entries, on the path, where the newest branch has led, without jumps. */
	unsigned long full, on_path, there, continuous;
	/* In functions that have been called; of these: with exactly the calls that have not returned. */
	unsigned long in_calls, call_stacks;
	/* How often another task has run meanwhile. perf clears the stack then. */
	unsigned long switches;
	/* Entries whose branch has come from the kernel, or has led there. */
	unsigned long from_kernel, to_kernel;
};

static void add(struct samples *samples, const struct sample *sample, uint64_t kinds)
{
	samples->all++;
	samples->full += sample->n == entries;
	samples->on_path += is_on_path(sample, kinds);
	samples->there += !sample->n || is_there(sample);
	samples->continuous += is_continuous(sample);
	samples->in_calls += depth_of_calls(sample) > 0;
	samples->call_stacks += is_call_stack(sample);
	for (uint64_t n = 0; n < sample->n; n++) {
		samples->from_kernel += is_kernel(sample->branches[n].from);
		samples->to_kernel += is_kernel(sample->branches[n].to);
	}
}

static unsigned long switches(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nvcsw + usage.ru_nivcsw;
}

static void system_calls(uint64_t n)
{
	while (n--)
		syscall(SYS_getppid);
}

static void page_faults(uint64_t n)
{
	volatile char *page = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		err(1, "mmap of a page");
	while (n--) {
		*page = 1;
		madvise((void *)page, getpagesize(), MADV_DONTNEED);
	}
	munmap((void *)page, getpagesize());
}

/* Samples what a function does. */
static struct samples sample(void (*function)(uint64_t), uint64_t n, uint64_t type, bool exclude_kernel)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_RAW,
		.size = sizeof(attr),
		.config = 0xc0,		/* instructions */
		.sample_period = PERIOD,
		.sample_type = PERF_SAMPLE_IP | PERF_SAMPLE_BRANCH_STACK,
		.branch_sample_type = type,
		.exclude_kernel = exclude_kernel,
		.disabled = 1,
	};
	uint64_t kinds = type & ~(uint64_t)ALL;
	struct samples samples = {};
	struct perf_event_mmap_page *ring;
	int fd;

	fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	if (fd < 0)
		err(1, "perf_event_open");
	ring = mmap(NULL, (RING_PAGES + 1) * getpagesize(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ring == MAP_FAILED)
		err(1, "mmap of the samples");
	samples.switches = -switches();
	ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
	function(n);
	ioctl(fd, PERF_EVENT_IOC_DISABLE, 0);
	samples.switches += switches();
	for (uint64_t tail = 0; tail < ring->data_head; ) {
		struct sample *record = (void *)((char *)ring + getpagesize() + tail);

		if (record->header.type == PERF_RECORD_SAMPLE)
			add(&samples, record, kinds);
		else
			warnx("a record of type %u", record->header.type);
		tail += record->header.size;
	}
	munmap(ring, (RING_PAGES + 1) * getpagesize());
	close(fd);
	return samples;
}

/*
 * Break: settle_branch() records each conditional branch, or enter_recorded() does not keep where the
 * block starts. On the Intel machine: bx_instr_cnear_branch_not_taken() records.
 */
static void any(void)
{
	struct samples samples = sample(loop, 100000, USER_ANY, true);

	tap_result(samples.all > 1000, "there are samples");
	tap_equal(samples.on_path, samples.all, "each has a stack that is the loop's only path");
	tap_equal(samples.there, samples.all, "to where it was taken");
	/* Of other stacks perf has dropped a return from an interrupt. */
	tap_result(samples.full > 0, "of a full stack, unless an interrupt came");
	tap_equal(samples.from_kernel + samples.to_kernel, 0, "all of user mode");
}

/* Break: two kinds have the same bit of LastBranchStackSelect, or the same type in IA32_LBR_x_INFO. */
static void filters(void)
{
	static const struct {
		uint64_t kinds;
		/* The hardware records far branches, too, which perf drops. */
		bool far;
		const char *name;
	} filters[] = {
		{ PERF_SAMPLE_BRANCH_COND, false, "conditional branches" },
		{ PERF_SAMPLE_BRANCH_CALL, false, "calls" },
		{ PERF_SAMPLE_BRANCH_IND_CALL, false, "indirect calls" },
		{ PERF_SAMPLE_BRANCH_IND_JUMP, false, "indirect jumps" },
		{ PERF_SAMPLE_BRANCH_IND_JUMP | PERF_SAMPLE_BRANCH_COND, false, "two kinds" },
		{ PERF_SAMPLE_BRANCH_ANY_CALL, true, "all calls" },
		{ PERF_SAMPLE_BRANCH_ANY_RETURN, true, "returns" },
	};
	char name[64];

	for (unsigned int i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
		struct samples samples;

		samples = sample(loop, 30000, PERF_SAMPLE_BRANCH_USER | filters[i].kinds, true);
		snprintf(name, sizeof(name), "%s: on the path", filters[i].name);
		tap_equal(samples.all ? samples.on_path : 1, samples.all, name);
		snprintf(name, sizeof(name), "%s: all of the stack", filters[i].name);
		if (filters[i].far)
			tap_result(samples.full > 0, name);
		else
			tap_result(samples.full + samples.switches >= samples.all, name);
	}
}

/*
 * Break: event_taken() records nothing, or the branch of SYSCALL is none; on the Intel machine interrupt() or
 * bx_instr_far_branch() does so, or what is frozen is recorded.
 */
static void kernel(void)
{
	struct samples samples = sample(system_calls, 20000, ALL, false);

	tap_result(samples.all > 1000, "system calls have samples");
	tap_equal(samples.continuous, samples.all, "each branch begins where the one before has led");
	tap_result(samples.to_kernel > 0 && samples.from_kernel > 0, "in the kernel, too");

	samples = sample(system_calls, 20000, PERF_SAMPLE_BRANCH_KERNEL | PERF_SAMPLE_BRANCH_ANY, false);
	tap_result(samples.to_kernel > 0, "of the kernel alone");
	samples = sample(page_faults, 1500, ALL, false);
	tap_result(samples.all > 1000, "page faults have samples");
	tap_equal(samples.continuous, samples.all, "they are branches");
	samples = sample(loop, 300000, ALL, false);
	tap_equal(samples.continuous, samples.all, "a loop that interrupts come into is without gaps");
}

/* Break: record() of the model does not look at the mode, or perf does not put a task's stack back. */
static void call_stack(void)
{
	struct samples samples;

	samples = sample(calls, 100000, PERF_SAMPLE_BRANCH_USER | PERF_SAMPLE_BRANCH_CALL_STACK, true);
	tap_result(samples.in_calls > 500, "functions have samples");
	tap_equal(samples.call_stacks, samples.in_calls, "each with those that have not returned");
}

int main(int argc, char **argv)
{
	FILE *caps = fopen("/sys/devices/cpu/caps/branches", "r");
	cpu_set_t set;

	/* For perf to record. */
	if (argc > 1 && !strcmp(argv[1], "calls")) {
		calls(1000000);
		return 0;
	}
	if (!caps || fscanf(caps, "%lu", &entries) != 1)
		errx(1, "there is no branch stack");
	fclose(caps);
	find_entry_points();
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	sched_setaffinity(0, sizeof(set), &set);

	printf("TAP version 13\n");
	any();
	filters();
	kernel();
	/* AMD's has no such mode. */
	if (is_intel())
		call_stack();
	return tap_done();
}
