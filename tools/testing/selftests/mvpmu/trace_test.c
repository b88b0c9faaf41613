// SPDX-License-Identifier: GPL-2.0
/*
 * The events of mvpmu's tracepoints are what debugfs counts, and guests count
 * exactly while they are traced.
 */
#include <fcntl.h>
#include <unistd.h>

#include "guest_pmis.h"
#include "host_events.h"
#include "harness.h"
#include "payload.h"

#define TRACING		"/sys/kernel/tracing"
#define SWITCH		"/sys/module/mvpmu/parameters/switch"
#define NR_CPUIDS	100

/* What of an event is looked at; 0 or empty if it has no such field. */
struct event {
	char name[32];
	char what[16];		/* reason or state */
	unsigned int reads;
	unsigned int writes;
	int error;
};

static struct event events[8192];
static unsigned int nr_events;

static void write_tracing(const char *file, const char *text)
{
	char path[128];
	int fd, n;

	snprintf(path, sizeof(path), TRACING "/%s", file);
	fd = open(path, O_WRONLY | O_TRUNC);
	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR(path, fd));
	n = write(fd, text, strlen(text));
	TEST_ASSERT(n == strlen(text), __KVM_SYSCALL_ERROR(path, n));
	close(fd);
}

/* The text behind @key, or NULL. */
static const char *field(const char *line, const char *key)
{
	const char *at = strstr(line, key);

	return at ? at + strlen(key) : NULL;
}

/* An event of vCPU 0 of the VM that was created last: others are not of interest. */
static bool parse(const char *line, struct event *event)
{
	const char *at = strstr(line, ": mvpmu_");
	unsigned long vm, vcpu, cpu;
	int pid;

	*event = (struct event) {};
	if (!at || sscanf(at, ": %31[^:]: vm=%d-%lu vcpu=%lu cpu=%lu", event->name, &pid,
			  &vm, &vcpu, &cpu) != 5)
		return false;
	if (pid != getpid() || vm != newest_vm())
		return false;
	TEST_ASSERT(!vcpu && cpu < sysconf(_SC_NPROCESSORS_CONF), "%s", line);

	line = at;
	at = field(line, "reason=") ?: field(line, "state=");
	if (at)
		sscanf(at, "%15s", event->what);
	at = field(line, "reads=");
	if (at)
		TEST_ASSERT(sscanf(at, "%u writes=%u", &event->reads, &event->writes) == 2,
			    "%s", line);
	at = field(line, "error=");
	if (at)
		TEST_ASSERT(sscanf(at, "%d", &event->error) == 1, "%s", line);
	return true;
}

static void read_events(void)
{
	unsigned long kept, written;
	bool complete = false;
	char line[512];
	FILE *file;

	file = fopen(TRACING "/trace", "r");
	TEST_ASSERT(file, "Cannot open " TRACING "/trace");
	for (nr_events = 0; fgets(line, sizeof(line), file);) {
		const char *at = field(line, "entries-in-buffer/entries-written: ");

		if (at) {
			TEST_ASSERT(sscanf(at, "%lu/%lu", &kept, &written) == 2, "%s", line);
			TEST_ASSERT(kept == written, "Events were lost: %s", line);
			complete = true;
		}
		TEST_ASSERT(nr_events < ARRAY_SIZE(events), "Too many events");
		nr_events += parse(line, &events[nr_events]);
	}
	fclose(file);
	TEST_ASSERT(complete, "The trace has no beginning");
}

static unsigned int nr_of(const char *name, const char *what)
{
	unsigned int i, n = 0;

	for (i = 0; i < nr_events; i++)
		n += !strcmp(events[i].name, name) &&
		     (!what || !strcmp(events[i].what, what));
	return n;
}

static void begin_trace(void)
{
	write_tracing("trace", "");
	write_tracing("events/mvpmu/enable", "1");
}

static void end_trace(void)
{
	write_tracing("events/mvpmu/enable", "0");
	read_events();
}

static bool run_traced(struct kvm_vcpu *vcpu)
{
	bool more;

	begin_trace();
	more = run_guest(vcpu, NULL);
	end_trace();
	return more;
}

static bool switches_eagerly(void)
{
	char value[16] = "";
	int fd = open(SWITCH, O_RDONLY);

	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR(SWITCH, fd));
	TEST_ASSERT(read(fd, value, sizeof(value) - 1) > 0, "Cannot read " SWITCH);
	close(fd);
	return !strcmp(value, "eager\n");
}

static void guest_take_pmis(void)
{
	take_pmis();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	measure_cpuid(counter_bit(0), NR_CPUIDS);
	GUEST_ASSERT_EQ(pmc_read(0), 1 + 4 * NR_CPUIDS + MEASURE_INSTRUCTIONS);
	GUEST_DONE();
}

/* Selects nothing while its state is in hardware: KVM does that there, without a switch. */
static void guest_count(void)
{
	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	measure_cpuid(counter_bit(0), NR_CPUIDS);
	GUEST_ASSERT_EQ(pmc_read(0), 1 + 4 * NR_CPUIDS + MEASURE_INSTRUCTIONS);
	GUEST_DONE();
}

FIXTURE(trace) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(trace)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
	self->vm = pmu_vm_create(&self->vcpu, guest_take_pmis);
	vm_install_exception_handler(self->vm, PMI_VECTOR, guest_pmi);
}

FIXTURE_TEARDOWN(trace)
{
	if (self->vm)
		kvm_vm_free(self->vm);
}

TEST_F(trace, events_are_as_many_as_debugfs_counts)
{
	EXPECT_FALSE(run_traced(self->vcpu));

	EXPECT_NE(0, nr_of("mvpmu_load", NULL));
	EXPECT_EQ(mvpmu_count("loads"), nr_of("mvpmu_load", NULL));
	EXPECT_EQ(mvpmu_count("puts"), nr_of("mvpmu_put", NULL));
	EXPECT_EQ(mvpmu_count("switches_avoided"), nr_of("mvpmu_park", NULL));
	EXPECT_EQ(mvpmu_count("releases"), nr_of("mvpmu_release", NULL));
	EXPECT_EQ(mvpmu_count("releases"), nr_of("mvpmu_put", "release"));
	EXPECT_EQ(mvpmu_count("pmis"), nr_of("mvpmu_pmi", NULL));
	EXPECT_EQ(NR_PMIS, nr_of("mvpmu_pmi", NULL));
	EXPECT_EQ(mvpmu_count("activations"), nr_of("mvpmu_state", "active"));
	EXPECT_EQ(0, nr_of("mvpmu_refuse", NULL));
}

/* A release of the vCPU's return to userspace is none of its thread's leaving the CPU. */
TEST_F(trace, events_are_in_the_order_of_what_happens)
{
	bool loaded = false, released = false;
	unsigned int i;

	EXPECT_FALSE(run_traced(self->vcpu));
	for (i = 0; i < nr_events; i++) {
		const struct event *event = &events[i];

		if (!strcmp(event->name, "mvpmu_load")) {
			EXPECT_FALSE(loaded);
			loaded = true;
		} else if (!strcmp(event->name, "mvpmu_put")) {
			EXPECT_TRUE(loaded);
			EXPECT_STREQ(released ? "release" : "exit", event->what);
			loaded = false;
		} else if (!strcmp(event->name, "mvpmu_park")) {
			EXPECT_TRUE(loaded);
		}
		released = !strcmp(event->name, "mvpmu_release");
	}
	EXPECT_FALSE(loaded);
	EXPECT_STREQ("mvpmu_put", events[nr_events - 1].name);
	if (switches_eagerly())
		return;
	EXPECT_STREQ("mvpmu_release", events[nr_events - 2].name);
	EXPECT_STREQ("kvm", events[nr_events - 2].what);
}

/* While the host counts, nothing is parked: only loads and puts access the hardware. */
TEST_F(trace, accesses_to_registers_are_those_of_the_puts)
{
	u64 reads = 0, writes = 0;
	unsigned int i, last = 0;
	int event;

	if (switches_eagerly())
		SKIP(return, "with switch=eager also what selects counters is in hardware");

	kvm_vm_free(self->vm);
	self->vm = pmu_vm_create(&self->vcpu, guest_count);
	event = open_host_event();
	EXPECT_FALSE(run_traced(self->vcpu));
	close(event);

	EXPECT_LE(NR_CPUIDS, nr_of("mvpmu_put", "exit"));
	EXPECT_EQ(0, nr_of("mvpmu_park", NULL));
	for (i = 0; i < nr_events; i++) {
		if (!strcmp(events[i].name, "mvpmu_load"))
			last = i;
		if (strcmp(events[i].name, "mvpmu_put"))
			continue;
		EXPECT_LT(events[last].reads + events[last].writes,
			  events[i].reads + events[i].writes);
		reads += events[i].reads;
		writes += events[i].writes;
	}
	EXPECT_NE(0, reads);
	EXPECT_EQ(mvpmu_count("hw_reads"), reads);
	EXPECT_EQ(mvpmu_count("hw_writes"), writes);
}

TEST_F(trace, nothing_is_traced_that_was_not_asked_for)
{
	write_tracing("trace", "");
	write_tracing("events/mvpmu/mvpmu_pmi/enable", "1");
	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	end_trace();
	EXPECT_EQ(NR_PMIS, nr_of("mvpmu_pmi", NULL));
	EXPECT_EQ(NR_PMIS, nr_events);
}

static void guest_select_and_stop(void)
{
	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	GUEST_SYNC(0);
	pmc_program(0, INSTRUCTIONS, PMC_OS, 0);
	GUEST_DONE();
}

TEST_F(trace, refusals_and_waits_are_events)
{
	int event;

	if (mode_is("refuse"))
		SKIP(return, "host_events=refuse");

	kvm_vm_free(self->vm);
	self->vm = pmu_vm_create(&self->vcpu, guest_select_and_stop);
	event = open_event();
	ASSERT_LE(0, event);
	EXPECT_TRUE(run_traced(self->vcpu));
	EXPECT_NE(0, mvpmu_count("refusals"));
	EXPECT_EQ(mvpmu_count("refusals"), nr_of("mvpmu_refuse", NULL));
	EXPECT_EQ(-EBUSY, events[0].error);
	EXPECT_EQ(1, nr_of("mvpmu_state", "waiting"));
	EXPECT_EQ(0, nr_of("mvpmu_load", NULL));
	close(event);
}

TEST_HARNESS_MAIN
