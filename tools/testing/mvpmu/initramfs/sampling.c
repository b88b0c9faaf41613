// SPDX-License-Identifier: GPL-2.0
/*
 * sampling [branches]: a fixed workload, alone and while perf samples the whole
 * system at 1 kHz; with the word there is one event, without and with branch
 * stacks.  As init of a Linux guest it marks where each begins and ends, by CPUID of
 * the test machine's own leaf: the machine notes down what it has counted by then.
 * In L1 that leaf tells how many instructions the CPU has executed.
 */
#include <cpuid.h>
#include <err.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MACHINE_LEAF	0x4d767075
/* What the leaf tells in L1, with this in EBX: the instructions of the kernel, and of programs. */
#define KERNEL		7
#define PROGRAMS	8
#define SIGNATURE	0x746e756f
/* 1 kHz, at four instructions a nanosecond. */
#define PERIOD		4000000
/* As a sample costs the same at each rate: so many that it is more than what ticks cost now and then. */
#define SHORT_PERIOD	200000
#define MAX_EVENTS	10
#define RING_PAGES	256
#define PAGE		4096
/* Neither machine's last sample is near the end. */
#define ROUNDS		111
/* So many samples are enough. */
#define FEWER_ROUNDS	37
#define NUMBERS		4096
#define PIECES		16
#define FRESH_PAGES	64
/* Always there, so that the page tables for it are always as many. */
#define FRESH		((void *)0x10000000000)

/* Whether a guest's kernel has started this. */
static bool is_init(void)
{
	return getpid() == 1;
}

static uint64_t ask_machine(uint32_t what)
{
	uint32_t eax, ebx, ecx, edx;

	/* The compiler must not move the work over it. */
	asm volatile("" : : : "memory");
	__cpuid_count(MACHINE_LEAF, what, eax, ebx, ecx, edx);
	asm volatile("" : : : "memory");
	if (!is_init() && (ebx != SIGNATURE || !ecx))
		errx(1, "this is not the test machine");
	return (uint64_t)edx << 32 | eax;
}

/* In L1 the number of instructions is returned. */
static uint64_t mark(void)
{
	static uint32_t marks;

	if (!is_init())
		return ask_machine(KERNEL) + ask_machine(PROGRAMS);
	ask_machine(marks++);
	return 0;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Computes, calls the kernel and uses fresh memory; the result depends on all of it. */
static uint32_t work(int rounds)
{
	static uint32_t numbers[NUMBERS];
	static char piece[PAGE];
	uint32_t state = 1, sum = 0;
	int ends[2];

	if (pipe(ends))
		err(1, "pipe");
	for (int round = 0; round < rounds; round++) {
		for (int i = 0; i < NUMBERS; i++) {
			state ^= state << 13;
			state ^= state >> 17;
			state ^= state << 5;
			numbers[i] = state;
		}
		qsort(numbers, NUMBERS, sizeof(*numbers), compare);
		sum = sum * 31 + numbers[round];

		for (int i = 0; i < PIECES; i++) {
			if (write(ends[1], numbers, PAGE) != PAGE ||
			    read(ends[0], piece, PAGE) != PAGE)
				err(1, "pipe");
			sum = sum * 31 + piece[i];
		}

		char *fresh = mmap(FRESH, FRESH_PAGES * PAGE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		if (fresh == MAP_FAILED)
			err(1, "mmap");
		for (int i = 0; i < FRESH_PAGES; i++)
			fresh[i * PAGE] = i;
		sum = sum * 31 + fresh[round % FRESH_PAGES * PAGE];
		munmap(fresh, FRESH_PAGES * PAGE);
	}
	close(ends[0]);
	close(ends[1]);
	return sum;
}

struct event {
	int fd;
	uint32_t period;
	struct perf_event_mmap_page *ring;
};

/*
 * As `perf record --count PERIOD --event instructions --all-cpus`; there is one CPU.
 * The period is fixed: perf's search for that of a frequency never ends in the same.
 */
static void open_event(struct event *event, bool branches)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.sample_period = event->period,
		.sample_type = PERF_SAMPLE_IP | PERF_SAMPLE_TID | PERF_SAMPLE_TIME |
			       PERF_SAMPLE_CPU | PERF_SAMPLE_PERIOD,
		.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING,
		.disabled = 1,
	};

	/* As `--branch-any`. */
	if (branches) {
		attr.sample_type |= PERF_SAMPLE_BRANCH_STACK;
		attr.branch_sample_type = PERF_SAMPLE_BRANCH_ANY;
	}
	event->fd = syscall(SYS_perf_event_open, &attr, -1, 0, -1, 0);
	if (event->fd < 0)
		err(1, "perf_event_open");
	event->ring = mmap(NULL, (RING_PAGES + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			   event->fd, 0);
	if (event->ring == MAP_FAILED)
		err(1, "mmap of the samples");
}

static void control(struct event *events, int n, unsigned long request)
{
	for (int i = 0; i < n; i++)
		if (ioctl(events[i].fd, request, 0))
			err(1, "ioctl of an event");
}

static uint64_t records(struct perf_event_mmap_page *ring, uint32_t type)
{
	char *data = (char *)ring + PAGE;
	uint64_t n = 0;

	for (uint64_t at = 0; at < ring->data_head; ) {
		/* Sizes are multiples of 8, so a header is in one piece. */
		struct perf_event_header *record = (void *)(data + at % (RING_PAGES * PAGE));

		n += record->type == type;
		at += record->size;
	}
	return n;
}

/* The branches of all samples.  Nobody has read any of them: they begin where the ring does. */
static uint64_t branches(struct perf_event_mmap_page *ring)
{
	char *data = (char *)ring + PAGE;
	uint64_t n = 0;

	if (ring->data_head > RING_PAGES * PAGE)
		errx(1, "more samples than fit");
	for (uint64_t at = 0; at < ring->data_head; ) {
		struct sample {
			struct perf_event_header header;
			uint64_t ip, task, time, cpu, period, branches;
		} *sample = (void *)(data + at);

		if (sample->header.type == PERF_RECORD_SAMPLE)
			n += sample->branches;
		at += sample->header.size;
	}
	return n;
}

static void close_event(const char *name, struct event *event)
{
	struct {
		uint64_t count, enabled, running;
	} values;

	if (read(event->fd, &values, sizeof(values)) != sizeof(values))
		err(1, "read of an event");
	printf("sampling: event %s count %lu period %u enabled %lu running %lu samples %lu lost %lu throttled %lu\n",
	       name, values.count, event->period, values.enabled, values.running,
	       records(event->ring, PERF_RECORD_SAMPLE), records(event->ring, PERF_RECORD_LOST),
	       records(event->ring, PERF_RECORD_THROTTLE));
	munmap(event->ring, (RING_PAGES + 1) * PAGE);
	close(event->fd);
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ul + time.tv_nsec;
}

static int rounds = ROUNDS;

static void measure(const char *name, int n, uint32_t period, bool with_branches)
{
	struct event events[MAX_EVENTS];
	uint64_t begin, end, before, after;
	uint32_t sum;

	/* The console sends what was said before, which takes VM exits: not during the work. */
	fflush(stdout);
	if (is_init() && tcdrain(STDOUT_FILENO))
		err(1, "tcdrain");
	for (int i = 0; i < n; i++) {
		events[i].period = period;
		open_event(&events[i], with_branches);
	}
	control(events, n, PERF_EVENT_IOC_ENABLE);
	begin = now();
	before = mark();
	sum = work(rounds);
	after = mark();
	end = now();
	control(events, n, PERF_EVENT_IOC_DISABLE);
	printf("sampling: test %s sum %u nanoseconds %lu\n", name, sum, end - begin);
	if (after)
		printf("sampling: instructions %s %lu\n", name, after - before);
	if (with_branches)
		printf("sampling: branches %s %lu\n", name, branches(events[0].ring));
	for (int i = 0; i < n; i++)
		close_event(name, &events[i]);
}

/* Whoever counts, and however long an interrupt takes on this machine: 1 kHz it is. */
static void allow_slow_interrupts(void)
{
	FILE *file;

	if (is_init()) {
		mkdir("/proc", 0755);
		if (mount("proc", "/proc", "proc", 0, NULL))
			err(1, "/proc");
	}
	file = fopen("/proc/sys/kernel/perf_cpu_time_max_percent", "w");
	if (!file || fputs("0", file) < 0 || fclose(file))
		err(1, "perf_cpu_time_max_percent");
}

int main(int argc, char **argv)
{
	bool with_branches = argc > 1 && !strcmp(argv[1], "branches");

	if (with_branches)
		rounds = FEWER_ROUNDS;
	allow_slow_interrupts();
	/* The first time uses what is used for the first time. */
	work(1);
	measure("without", 0, 0, false);
	if (with_branches) {
		measure("single", 1, SHORT_PERIOD, false);
		measure("branches", 1, SHORT_PERIOD, true);
	} else {
		measure("basic", 6, PERIOD, false);
		measure("multiplex", MAX_EVENTS, PERIOD, false);
	}
	measure("again", 0, 0, false);
	printf("sampling: end\n");
	fflush(stdout);
	if (!is_init())
		return 0;
	reboot(RB_AUTOBOOT);
	return 1;
}
