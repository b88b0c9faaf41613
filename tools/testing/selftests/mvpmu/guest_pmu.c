// SPDX-License-Identifier: GPL-2.0
#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/perf_event.h>

#include "apic.h"
#include "guest_pmu.h"

static const struct pmu_vendor amd = {
	.name			= "AMD PerfMonV2",
	.selector		= MSR_F15H_PERF_CTL,
	.counter		= MSR_F15H_PERF_CTR,
	.stride			= 2,
	.global_control		= MSR_AMD64_PERF_CNTR_GLOBAL_CTL,
	.global_status		= MSR_AMD64_PERF_CNTR_GLOBAL_STATUS,
	.global_status_clear	= MSR_AMD64_PERF_CNTR_GLOBAL_STATUS_CLR,
	.global_status_set	= MSR_AMD64_PERF_CNTR_GLOBAL_STATUS_SET,
	.event = {
		[INSTRUCTIONS]	= AMD_ZEN_INSTRUCTIONS_RETIRED,
		[BRANCHES]	= AMD_ZEN_BRANCHES_RETIRED,
	},
};

static const struct pmu_vendor intel = {
	.name			= "Intel architectural PMU",
	.selector		= MSR_P6_EVNTSEL0,
	.counter		= MSR_IA32_PMC0,
	.stride			= 1,
	.fixed_control		= MSR_CORE_PERF_FIXED_CTR_CTRL,
	.fixed_counter		= MSR_CORE_PERF_FIXED_CTR0,
	.fixed_rdpmc		= INTEL_RDPMC_FIXED,
	.global_control		= MSR_CORE_PERF_GLOBAL_CTRL,
	.global_status		= MSR_CORE_PERF_GLOBAL_STATUS,
	.global_status_clear	= MSR_CORE_PERF_GLOBAL_OVF_CTRL,
	.event = {
		[INSTRUCTIONS]	= INTEL_ARCH_INSTRUCTIONS_RETIRED,
		[BRANCHES]	= INTEL_ARCH_BRANCHES_RETIRED,
	},
	.reserved_bits_fault	= true,
	.status_write_faults	= true,
	.pmi_masks_lvtpc	= true,
};

const struct pmu_vendor *vendor;
struct pmu_shape shape;

void pmc_program(unsigned int pmc, enum pmu_event event, u64 flags, u64 value)
{
	unsigned int fixed = pmc - shape.nr_gp;
	u64 control, field = 0;

	wrmsr(counter_msr(pmc), value);
	if (!pmc_is_fixed(pmc)) {
		wrmsr(selector_msr(pmc), vendor->event[event] | flags);
		return;
	}

	/* A fixed counter has no enable bit of its own. */
	if (flags & PMC_ENABLE) {
		field |= flags & PMC_OS ? FIXED_PMC_KERNEL : 0;
		field |= flags & PMC_USR ? FIXED_PMC_USER : 0;
		field |= flags & PMC_PMI ? FIXED_PMC_ENABLE_PMI : 0;
	}
	control = rdmsr(vendor->fixed_control);
	control &= ~FIXED_PMC_CTRL(fixed, 0xfull);
	wrmsr(vendor->fixed_control, control | FIXED_PMC_CTRL(fixed, field));
}

void pmu_reset(void)
{
	unsigned int pmc;

	wrmsr(vendor->global_control, 0);
	if (vendor->fixed_control)
		wrmsr(vendor->fixed_control, 0);
	for (pmc = 0; pmc < nr_counters(); pmc++) {
		if (!pmc_is_fixed(pmc))
			wrmsr(selector_msr(pmc), 0);
		wrmsr(counter_msr(pmc), 0);
	}
	wrmsr(vendor->global_status_clear, rdmsr(vendor->global_status));
}

u64 pmc_program_all(enum pmu_event event, first_value_fn first)
{
	unsigned int pmc;
	u64 enable = 0;

	for (pmc = 0; pmc < nr_counters(); pmc++) {
		if (!pmc_counts(pmc, event))
			continue;
		pmc_program(pmc, event, PMC_COUNT, first ? first(pmc) : 0);
		enable |= counter_bit(pmc);
	}
	return enable;
}

void pmc_check_all(u64 enable, first_value_fn first, u64 counted)
{
	unsigned int pmc;
	u64 expected;

	for (pmc = 0; pmc < nr_counters(); pmc++) {
		if (!(enable & counter_bit(pmc)))
			continue;
		expected = ((first ? first(pmc) : 0) + counted) & counter_mask();
		__GUEST_ASSERT(pmc_read(pmc) == expected,
			       "counter %u: expected %lu, counted %lu",
			       pmc, expected, pmc_read(pmc));
	}
}

static bool parameter_is_set(const char *path)
{
	char value = 0;
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return false;
	if (read(fd, &value, 1) != 1)
		value = 0;
	close(fd);
	return value == 'Y' || value == '1';
}

#define MVPMU_ENABLED	"/sys/module/mvpmu/parameters/enable_passthrough_pmu"
#define MVPMU_DEBUGFS	"/sys/kernel/debug/mvpmu"

const char *pmu_missing(void)
{
	vendor = host_cpu_is_intel ? &intel : &amd;

	if (host_cpu_is_intel) {
		if (kvm_cpu_property(X86_PROPERTY_PMU_VERSION) < 2)
			return "KVM offers no architectural PMU";
	} else if (!kvm_cpu_has(X86_FEATURE_PERFMON_V2)) {
		return "KVM offers no PerfMonV2";
	}
	if (!parameter_is_set(MVPMU_ENABLED) &&
	    !parameter_is_set("/sys/module/kvm_amd/parameters/enable_mediated_pmu") &&
	    !parameter_is_set("/sys/module/kvm_intel/parameters/enable_mediated_pmu"))
		return "no mediated PMU: load mvpmu, or KVM with enable_mediated_pmu=1";
	return NULL;
}

/* VMs have a directory each, PID-N; N grows. */
unsigned long newest_vm(void)
{
	unsigned long n, newest = 0;
	struct dirent *entry;
	bool found = false;
	int pid;
	DIR *dir;

	dir = opendir(MVPMU_DEBUGFS);
	TEST_ASSERT(dir, "Cannot open " MVPMU_DEBUGFS);
	while ((entry = readdir(dir))) {
		if (sscanf(entry->d_name, "%d-%lu", &pid, &n) != 2 || pid != getpid())
			continue;
		newest = found ? max(newest, n) : n;
		found = true;
	}
	closedir(dir);
	TEST_ASSERT(found, "No VM in " MVPMU_DEBUGFS);
	return newest;
}

u64 mvpmu_count(const char *key)
{
	size_t length = strlen(key);
	char path[64], line[128];
	bool found = false;
	u64 count = 0;
	FILE *file;

	snprintf(path, sizeof(path), MVPMU_DEBUGFS "/%d-%lu/vcpu0", getpid(), newest_vm());
	file = fopen(path, "r");
	TEST_ASSERT(file, "Cannot open %s", path);
	while (!found && fgets(line, sizeof(line), file))
		found = !strncmp(line, key, length) &&
			sscanf(line + length, ": %lu", &count) == 1;
	fclose(file);
	TEST_ASSERT(found, "%s has no %s", path, key);
	return count;
}

u64 pmu_loads(struct kvm_vcpu *vcpu)
{
	/* KVM's own code loads at each VM entry. */
	if (!parameter_is_set(MVPMU_ENABLED))
		return vcpu_get_stat(vcpu, exits);
	return mvpmu_count("loads");
}

void pmu_sync_to_guest(struct kvm_vm *vm)
{
	sync_global_to_guest(vm, vendor);
	sync_global_to_guest(vm, shape);
}

struct kvm_vm *pmu_vm_create(struct kvm_vcpu **vcpu, void *guest_code)
{
	return pmu_vm_create_with(vcpu, guest_code, 0);
}

struct kvm_vm *pmu_vm_create_with(struct kvm_vcpu **vcpu, void *guest_code, u64 capability)
{
	struct kvm_vm *vm = vm_create(1);

	if (capability)
		vm_enable_cap(vm, KVM_CAP_PMU_CAPABILITY, capability);
	*vcpu = vm_vcpu_add(vm, 0, guest_code);

	if (host_cpu_is_intel)
		shape = (struct pmu_shape) {
			.nr_gp = kvm_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS),
			.nr_fixed = kvm_cpu_property(X86_PROPERTY_PMU_NR_FIXED_COUNTERS),
			.width = kvm_cpu_property(X86_PROPERTY_PMU_GP_COUNTERS_BIT_WIDTH),
		};
	else
		shape = (struct pmu_shape) {
			.nr_gp = kvm_cpu_property(X86_PROPERTY_NR_PERFCTR_CORE),
			.width = 48,
		};
	/* KVM emulates neither slots nor metrics. */
	if (capability == KVM_PMU_CAP_EMULATED)
		shape.nr_fixed = min(shape.nr_fixed, 3);
	/* Bit 15 of the capabilities; they are shares of what fixed counter 3 counts. */
	if (shape.nr_fixed > 3)
		shape.has_metrics = vcpu_get_msr(*vcpu, MSR_IA32_PERF_CAPABILITIES) >> 15 & 1;
	pmu_sync_to_guest(vm);
	return vm;
}

bool guest_has_all_counters(void)
{
	if (host_cpu_is_intel)
		return shape.nr_gp == this_cpu_property(X86_PROPERTY_PMU_NR_GP_COUNTERS) &&
		       shape.nr_fixed == this_cpu_property(X86_PROPERTY_PMU_NR_FIXED_COUNTERS);

	return shape.nr_gp == this_cpu_property(X86_PROPERTY_NR_PERFCTR_CORE);
}

void pmu_limit_counters(struct kvm_vcpu *vcpu, u32 nr_gp)
{
	if (host_cpu_is_intel)
		vcpu_set_cpuid_property(vcpu, X86_PROPERTY_PMU_NR_GP_COUNTERS, nr_gp);
	else
		vcpu_set_cpuid_property(vcpu, X86_PROPERTY_NR_PERFCTR_CORE, nr_gp);
	shape.nr_gp = nr_gp;
	pmu_sync_to_guest(vcpu->vm);
}

void map_mmio(struct kvm_vm *vm)
{
	virt_pg_map(vm, TEST_MMIO_GVA, TEST_MMIO_GPA);
	virt_pg_map(vm, APIC_DEFAULT_GPA, APIC_DEFAULT_GPA);
}

/* Selectors that libkvm leaves free, and what they select. */
#define USER_CS		(0x28 | 3)
#define USER_DS		(0x30 | 3)
#define USER_CODE_64	0x00affb000000ffffull
#define USER_DATA	0x00cff3000000ffffull
#define TSS_RSP0	4

/* Sets the user bit in a page table and in all below it. */
static void allow_user(struct kvm_vm *vm, u64 table, unsigned int level)
{
	u64 *entries = addr_gpa2hva(vm, table);
	unsigned int i;

	for (i = 0; i < 512; i++) {
		if (!(entries[i] & PTE_PRESENT_MASK(&vm->mmu)))
			continue;
		entries[i] |= PTE_USER_MASK(&vm->mmu);
		if (level > 1)
			allow_user(vm, entries[i] & PHYSICAL_PAGE_MASK, level - 1);
	}
}

void enter_user_mode(struct kvm_vcpu *vcpu)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	gva_t stack;
	u64 *gdt;
	u8 *tss;

	vcpu_sregs_get(vcpu, &sregs);
	sregs.cs.dpl = 3;
	sregs.cs.selector = USER_CS;
	sregs.ss = sregs.ds;
	sregs.ss.dpl = 3;
	sregs.ss.selector = USER_DS;
	vcpu_sregs_set(vcpu, &sregs);

	/* An exception comes to CPL 0, and goes back. */
	gdt = addr_gva2hva(vcpu->vm, sregs.gdt.base);
	gdt[USER_CS / 8] = USER_CODE_64;
	gdt[USER_DS / 8] = USER_DATA;
	tss = addr_gva2hva(vcpu->vm, sregs.tr.base);
	stack = vm_alloc_page(vcpu->vm) + getpagesize();
	memcpy(tss + TSS_RSP0, &stack, sizeof(stack));

	allow_user(vcpu->vm, vcpu->vm->mmu.pgd, vcpu->vm->mmu.pgtable_levels);

	/* IOPL 3: port I/O is allowed. */
	vcpu_regs_get(vcpu, &regs);
	regs.rflags |= 3 * X86_EFLAGS_IOPL;
	vcpu_regs_set(vcpu, &regs);
}

static bool is_test_io(const struct kvm_run *run)
{
	return (run->exit_reason == KVM_EXIT_IO && run->io.port == TEST_PORT) ||
	       (run->exit_reason == KVM_EXIT_MMIO &&
		run->mmio.phys_addr == TEST_MMIO_GPA);
}

/* The vCPU's exit is GUEST_SYNC (true) or GUEST_DONE (false). */
static bool take_ucall(struct kvm_vcpu *vcpu, u64 *arg)
{
	struct ucall uc;

	switch (get_ucall(vcpu, &uc)) {
	case UCALL_SYNC:
		if (arg)
			*arg = uc.args[1];
		return true;
	case UCALL_DONE:
		return false;
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
		break;
	default:
		vcpu_dump(stderr, vcpu, 0);
		TEST_FAIL("Unexpected exit %u (%s)", vcpu->run->exit_reason,
			  exit_reason_str(vcpu->run->exit_reason));
	}
	return false;
}

bool run_guest_io(struct kvm_vcpu **vcpu, u64 *arg, io_hook on_io, void *data)
{
	unsigned int nr = 0;

	for (;;) {
		vcpu_run(*vcpu);
		if (!is_test_io((*vcpu)->run))
			return take_ucall(*vcpu, arg);
		if (on_io)
			on_io(vcpu, nr, data);
		nr++;
	}
}

bool run_to_io(struct kvm_vcpu *vcpu)
{
	vcpu_run(vcpu);
	if (is_test_io(vcpu->run))
		return true;
	TEST_ASSERT(!take_ucall(vcpu, NULL), "Unexpected GUEST_SYNC");
	return false;
}

int open_host_event(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.size = sizeof(attr),
		.pinned = 1,
		.inherit = 1,
		.exclude_guest = 1,
	};
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);

	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("perf_event_open", fd));
	return fd;
}
