// SPDX-License-Identifier: GPL-2.0
/*
 * What mvpmu shows in debugfs is true, and looking at it changes nothing.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "guest_pmis.h"
#include "harness.h"
#include "payload.h"

#define MVPMU		"/sys/kernel/debug/mvpmu"
#define REFCOUNT	"/sys/module/mvpmu/refcnt"

/* The keys that "stats" and the files of the vCPUs have in common. */
static const char * const counts[] = {
	"activations", "refusals", "loads", "puts", "switches_avoided",
	"releases", "pmis", "hw_reads", "hw_writes", "guest_reads",
	"guest_writes",
};

static bool read_file(const char *path, char *text, size_t size)
{
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY);
	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	close(fd);
	TEST_ASSERT(n >= 0, __KVM_SYSCALL_ERROR(path, (int)n));
	text[n] = 0;
	return true;
}

/* The value of the line "@key: value". */
static void read_value(const char *path, const char *key, char *value, size_t size)
{
	size_t length = strlen(key);
	char text[4096], *line, *rest = text;

	TEST_ASSERT(read_file(path, text, sizeof(text)), "Cannot read %s", path);
	while ((line = strsep(&rest, "\n"))) {
		if (strncmp(line, key, length) || strncmp(line + length, ": ", 2))
			continue;
		snprintf(value, size, "%s", line + length + 2);
		return;
	}
	TEST_FAIL("%s has no line \"%s: \"", path, key);
}

static u64 read_count(const char *path, const char *key)
{
	char value[64], *end;
	u64 count;

	read_value(path, key, value, sizeof(value));
	count = strtoull(value, &end, 10);
	TEST_ASSERT(end != value && !*end, "%s: %s: \"%s\" is no number", path, key, value);
	return count;
}

static bool switches_eagerly(void)
{
	char mode[32];

	read_value(MVPMU "/capability", "switch", mode, sizeof(mode));
	return !strcmp(mode, "eager");
}

/* The directories of this process's VMs; the name of the last one in @path. */
static unsigned int vm_directories(char *path, size_t size)
{
	unsigned int nr = 0;
	struct dirent *entry;
	char prefix[32];
	DIR *dir;

	dir = opendir(MVPMU);
	TEST_ASSERT(dir, "Cannot open " MVPMU);
	snprintf(prefix, sizeof(prefix), "%d-", getpid());
	while ((entry = readdir(dir))) {
		if (strncmp(entry->d_name, prefix, strlen(prefix)))
			continue;
		snprintf(path, size, MVPMU "/%s", entry->d_name);
		nr++;
	}
	closedir(dir);
	return nr;
}

static void vcpu_file(unsigned int id, char *path, size_t size)
{
	char directory[300];

	TEST_ASSERT_EQ(vm_directories(directory, sizeof(directory)), 1);
	snprintf(path, size, "%s/vcpu%u", directory, id);
}

static u64 stop;
static u64 iterations;

static void guest_take_pmis(void)
{
	take_pmis();
	GUEST_DONE();
}

static void guest_count(void)
{
	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	measure_cpuid(counter_bit(0), 100);
	GUEST_DONE();
}

static void guest_spin(void)
{
	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	MEASURE(counter_bit(0),
		"1: incq %[iterations]\n\t"
		"cmpq $0, %[stop]\n\t"
		"je 1b", [iterations]"m"(iterations), [stop]"m"(stop));
	GUEST_ASSERT_EQ(pmc_read(0), 3 * iterations + MEASURE_INSTRUCTIONS);
	GUEST_DONE();
}

FIXTURE(debugfs) {
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
};

FIXTURE_SETUP(debugfs)
{
	const char *missing = pmu_missing();

	if (missing)
		SKIP(return, "%s", missing);
	if (access(MVPMU, F_OK))
		SKIP(return, "no " MVPMU ": mvpmu is not loaded");
}

FIXTURE_TEARDOWN(debugfs)
{
	if (self->vm)
		kvm_vm_free(self->vm);
}

/* Seen to fail when there is one counter too many. */
TEST_F(debugfs, capability_is_what_cpuid_says)
{
	u32 version = 2, gp, fixed = 0, width = 48;
	char value[64];

	if (host_cpu_is_intel) {
		version = this_cpu_property(X86_PROPERTY_PMU_VERSION);
		gp = this_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS);
		fixed = this_cpu_property(X86_PROPERTY_PMU_NR_FIXED_COUNTERS);
		width = this_cpu_property(X86_PROPERTY_PMU_GP_COUNTERS_BIT_WIDTH);
	} else {
		gp = this_cpu_property(X86_PROPERTY_NR_PERFCTR_CORE);
	}

	read_value(MVPMU "/capability", "vendor", value, sizeof(value));
	EXPECT_STREQ(host_cpu_is_intel ? "intel" : "amd", value);
	EXPECT_EQ(version, read_count(MVPMU "/capability", "version"));
	EXPECT_EQ(gp, read_count(MVPMU "/capability", "gp_counters"));
	EXPECT_EQ(fixed, read_count(MVPMU "/capability", "fixed_counters"));
	EXPECT_EQ(width, read_count(MVPMU "/capability", "counter_width"));
	read_value(MVPMU "/capability", "enabled", value, sizeof(value));
	EXPECT_STREQ("yes", value);
}

/* Seen to fail when the directory stays. */
TEST_F(debugfs, vm_directory_lives_from_the_first_vcpu_to_the_end_of_the_vm)
{
	char path[300], file[320];

	self->vm = vm_create_barebones();
	EXPECT_EQ(0, vm_directories(path, sizeof(path)));
	kvm_vm_free(self->vm);

	self->vm = pmu_vm_create(&self->vcpu, guest_count);
	EXPECT_EQ(1, vm_directories(path, sizeof(path)));
	snprintf(file, sizeof(file), "%s/vcpu0", path);
	EXPECT_EQ(0, access(file, R_OK));
	snprintf(file, sizeof(file), "%s/vcpu1", path);
	EXPECT_EQ(-1, access(file, R_OK));
	vm_vcpu_add(self->vm, 1, guest_count);
	EXPECT_EQ(0, access(file, R_OK));

	kvm_vm_free(self->vm);
	self->vm = NULL;
	EXPECT_EQ(0, vm_directories(path, sizeof(path)));
}

/* Seen to fail when the VM takes no reference. */
TEST_F(debugfs, module_is_referenced_while_a_vm_exists)
{
	char before[32], text[32];

	ASSERT_TRUE(read_file(REFCOUNT, before, sizeof(before)));
	self->vm = pmu_vm_create(&self->vcpu, guest_count);
	ASSERT_TRUE(read_file(REFCOUNT, text, sizeof(text)));
	EXPECT_GT(atoi(text), atoi(before));

	kvm_vm_free(self->vm);
	self->vm = NULL;
	ASSERT_TRUE(read_file(REFCOUNT, text, sizeof(text)));
	EXPECT_STREQ(before, text);
}

/* Seen to fail when a put is not counted. */
TEST_F(debugfs, every_load_has_its_put_when_the_vcpu_is_back_in_userspace)
{
	char path[320];
	u64 loads;

	self->vm = pmu_vm_create(&self->vcpu, guest_count);
	vcpu_file(0, path, sizeof(path));
	EXPECT_EQ(0, read_count(path, "loads"));

	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	loads = read_count(path, "loads");
	EXPECT_NE(0, loads);
	EXPECT_EQ(loads, read_count(path, "puts"));
}

static void guest_stay_dormant(void)
{
	pmu_reset();
	measure_cpuid(0, 100);
	GUEST_SYNC(0);
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	measure_cpuid(counter_bit(0), 100);
	GUEST_DONE();
}

/* Seen to fail when the time since the last change of state is left out. */
TEST_F(debugfs, time_passes_in_the_state_that_the_vcpu_is_in)
{
	char path[320];
	u64 dormant, active;

	if (switches_eagerly())
		SKIP(return, "with switch=eager a vCPU is not dormant");

	self->vm = pmu_vm_create(&self->vcpu, guest_stay_dormant);
	vcpu_file(0, path, sizeof(path));
	EXPECT_TRUE(run_guest(self->vcpu, NULL));
	EXPECT_NE(0, read_count(path, "time_dormant_us"));
	EXPECT_EQ(0, read_count(path, "time_active_us"));
	EXPECT_EQ(0, read_count(path, "time_in_hardware_us"));

	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	dormant = read_count(path, "time_dormant_us");
	active = read_count(path, "time_active_us");
	EXPECT_NE(0, active);
	EXPECT_NE(0, read_count(path, "time_in_hardware_us"));
	EXPECT_LE(read_count(path, "time_in_hardware_us"), active);
	EXPECT_EQ(dormant, read_count(path, "time_dormant_us"));
	EXPECT_LT(active, read_count(path, "time_active_us"));
}

static void guest_stop_counting(void)
{
	pmu_reset();
	pmc_program(0, INSTRUCTIONS, PMC_COUNT, 0);
	measure_cpuid(counter_bit(0), 100);
	wrmsr(selector_msr(0), 0);
	measure_cpuid(0, 100);
	GUEST_SYNC(0);
	measure_cpuid(0, 100);
	GUEST_DONE();
}

/*
 * Each exit of a guest that counts is a switch then; one that no longer counts
 * leaves the PMU to the host.  Seen to fail when only the end of parking asks
 * for that.
 */
TEST_F(debugfs, stopped_guest_is_not_switched_while_the_host_counts)
{
	char path[320];
	int event;
	u64 loads;

	if (switches_eagerly())
		SKIP(return, "with switch=eager a vCPU is not dormant");

	event = open_host_event();
	self->vm = pmu_vm_create(&self->vcpu, guest_stop_counting);
	vcpu_file(0, path, sizeof(path));
	EXPECT_TRUE(run_guest(self->vcpu, NULL));
	loads = read_count(path, "loads");
	EXPECT_GE(loads, 100);

	EXPECT_FALSE(run_guest(self->vcpu, NULL));
	EXPECT_EQ(loads, read_count(path, "loads"));
	close(event);
}

/* Seen to fail when a PMI is counted twice. */
TEST_F(debugfs, pmis_are_as_many_as_the_guest_took)
{
	char path[320];

	self->vm = pmu_vm_create(&self->vcpu, guest_take_pmis);
	vm_install_exception_handler(self->vm, PMI_VECTOR, guest_pmi);
	EXPECT_FALSE(run_guest(self->vcpu, NULL));

	vcpu_file(0, path, sizeof(path));
	EXPECT_EQ(NR_PMIS, read_count(path, "pmis"));
}

struct totals {
	u64 count[ARRAY_SIZE(counts)];
};

static struct totals read_totals(const char *path)
{
	struct totals totals;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(counts); i++)
		totals.count[i] = read_count(path, counts[i]);
	return totals;
}

static void check_totals(const struct totals *before, const struct totals *ours)
{
	struct totals now = read_totals(MVPMU "/stats");
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(counts); i++)
		TEST_ASSERT(now.count[i] == before->count[i] + ours->count[i],
			    "%s: total %lu, expected %lu + %lu", counts[i],
			    now.count[i], before->count[i], ours->count[i]);
}

/* Seen to fail when a VM's counts are lost with it. */
TEST_F(debugfs, totals_are_the_sum_of_the_vcpus_also_after_their_end)
{
	struct totals before = read_totals(MVPMU "/stats"), ours;
	u64 vms = read_count(MVPMU "/stats", "vms");
	u64 vcpus = read_count(MVPMU "/stats", "vcpus");
	char path[320];

	self->vm = pmu_vm_create(&self->vcpu, guest_take_pmis);
	vm_install_exception_handler(self->vm, PMI_VECTOR, guest_pmi);
	EXPECT_EQ(vms + 1, read_count(MVPMU "/stats", "vms"));
	EXPECT_EQ(vcpus + 1, read_count(MVPMU "/stats", "vcpus"));
	EXPECT_FALSE(run_guest(self->vcpu, NULL));

	vcpu_file(0, path, sizeof(path));
	ours = read_totals(path);
	check_totals(&before, &ours);

	kvm_vm_free(self->vm);
	self->vm = NULL;
	check_totals(&before, &ours);
}

static void *vcpu_thread(void *vcpu)
{
	TEST_ASSERT(!run_guest(vcpu, NULL), "The guest has to end");
	return NULL;
}

/* Has to fail when a read makes the vCPU give its state up. */
TEST_F(debugfs, reading_does_not_disturb_a_guest_that_counts)
{
	u64 *running, seen;
	pthread_t thread;
	char path[320];
	unsigned int i;

	self->vm = pmu_vm_create(&self->vcpu, guest_spin);
	running = addr_gva2hva(self->vm, (gva_t)&iterations);
	vcpu_file(0, path, sizeof(path));
	ASSERT_EQ(0, pthread_create(&thread, NULL, vcpu_thread, self->vcpu));

	for (i = 0; i < 25; i++) {
		seen = READ_ONCE(*running);
		while (READ_ONCE(*running) == seen)
			sched_yield();
		read_count(path, "loads");
		read_count(MVPMU "/stats", "loads");
		read_count(MVPMU "/capability", "version");
	}

	WRITE_ONCE(*(u64 *)addr_gva2hva(self->vm, (gva_t)&stop), 1);
	pthread_join(thread, NULL);
}

TEST_HARNESS_MAIN
