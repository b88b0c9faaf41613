// SPDX-License-Identifier: GPL-2.0
/*
 * Not a test: a guest that counts, which is carried to another machine in a file.
 *
 *	carried_guest save FILE COUNTERS
 *	carried_guest restore FILE
 *
 * The first one runs a guest that was given so many general purpose counters, and
 * that exits to userspace all the time with all its counters on, saves it in the
 * midst of that, and ends.  The second one goes on with it: its counts have to be
 * exact.  If KVM refuses a register with a value, it says which, and does not run
 * the guest; a host whose KVM offers no such PMU is no reason not to try.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate.h"
#include "payload.h"

#define NR_LOOPS	20
#define SAVED_AT_EXIT	NR_LOOPS	/* of twice as many */

/*
 * The guest writes there what is wrong, or that all is right: a ucall would have
 * an address of the process that has saved it.
 */
#define RESULT_PORT	(TEST_PORT + 1)
#define ALL_IS_RIGHT	0xffffffff

static const struct payload pio = PAYLOAD_PIO;

/*
 * To the guest: whether the WRMSR that starts the counters exits, and the one that
 * stops them.  See payload.h.
 */
static bool start_exits, stop_exits;

/* One that overflows, one that has a value, others with none; all go on from there. */
static u64 first_value(unsigned int pmc)
{
	return pmc == 0 ? overflow_in(1) : pmc;
}

static void say(u32 result)
{
	asm volatile("outl %0, %w1" : : "a"(result), "d"(RESULT_PORT));
}

static void guest_count(void)
{
	u64 counted = payload_count(&pio, INSTRUCTIONS, NR_LOOPS), enable;
	unsigned int pmc;

	pmu_reset();
	enable = pmc_program_all(INSTRUCTIONS, first_value);
	pio.measure(enable, NR_LOOPS);
	counted += start_exits;
	counted -= stop_exits;
	for (pmc = 0; pmc < nr_counters(); pmc++)
		if (enable & counter_bit(pmc) &&
		    pmc_read(pmc) != ((first_value(pmc) + counted) & counter_mask()))
			say(pmc);
	if (rdmsr(vendor->global_status) != counter_bit(0))
		say(vendor->global_status);
	say(ALL_IS_RIGHT);
}

static void put(FILE *file, const void *data, size_t size)
{
	TEST_ASSERT(fwrite(data, size, 1, file) == 1, "Cannot write: %s", strerror(errno));
}

static void get(FILE *file, void *data, size_t size)
{
	TEST_ASSERT(fread(data, size, 1, file) == 1, "Cannot read: %s", strerror(errno));
}

static FILE *open_file(const char *name, const char *mode)
{
	FILE *file = fopen(name, mode);

	TEST_ASSERT(file, "Cannot open %s: %s", name, strerror(errno));
	return file;
}

static size_t cpuid_size(u32 nent)
{
	return sizeof(struct kvm_cpuid2) + nent * sizeof(struct kvm_cpuid_entry2);
}

static size_t state_size(u32 nmsrs)
{
	return sizeof(struct kvm_x86_state) + nmsrs * sizeof(struct kvm_msr_entry);
}

static size_t xsave_size(struct kvm_vm *vm)
{
	return vm_check_cap(vm, KVM_CAP_XSAVE2) ?: sizeof(struct kvm_xsave);
}

/* Pages in which there is something, each with its address; at the end ~0. */
static void put_memory(FILE *file, struct kvm_vm *vm)
{
	static const char zero[PAGE_SIZE];
	struct userspace_mem_region *region;
	u64 gpa, offset;
	int i;

	hash_for_each(vm->regions.slot_hash, i, region, slot_node) {
		for (offset = 0; offset < region->region.memory_size; offset += PAGE_SIZE) {
			const void *page = region->host_mem + offset;

			if (!memcmp(page, zero, PAGE_SIZE))
				continue;
			gpa = region->region.guest_phys_addr + offset;
			put(file, &gpa, sizeof(gpa));
			put(file, page, PAGE_SIZE);
		}
	}
	gpa = ~0ull;
	put(file, &gpa, sizeof(gpa));
}

/* The same program makes the same VM: what is not in the file is 0 or the same. */
static void get_memory(FILE *file, struct kvm_vm *vm)
{
	u64 gpa;

	for (;;) {
		get(file, &gpa, sizeof(gpa));
		if (gpa == ~0ull)
			return;
		get(file, addr_gpa2hva(vm, gpa), PAGE_SIZE);
	}
}

static void save(const char *name, u32 nr_gp)
{
	struct kvm_lapic_state apic;
	struct kvm_x86_state *state;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	unsigned int nr;
	FILE *file;

	vm = pmu_vm_create(&vcpu, guest_count);
	pmu_limit_counters(vcpu, nr_gp);
	start_exits = !guest_has_all_counters();
	sync_global_to_guest(vm, start_exits);
	for (nr = 0; nr <= SAVED_AT_EXIT; nr++) {
		vcpu_run(vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
		TEST_ASSERT_EQ(vcpu->run->io.port, TEST_PORT);
	}
	state = vcpu_save_state(vcpu);
	vcpu_ioctl(vcpu, KVM_GET_LAPIC, &apic);

	file = open_file(name, "w");
	put(file, &vcpu->cpuid->nent, sizeof(u32));
	put(file, vcpu->cpuid, cpuid_size(vcpu->cpuid->nent));
	put(file, &state->msrs.nmsrs, sizeof(u32));
	put(file, state, state_size(state->msrs.nmsrs));
	put(file, state->xsave, xsave_size(vm));
	put(file, &apic, sizeof(apic));
	put_memory(file, vm);
	TEST_ASSERT(!fclose(file), "Cannot write: %s", strerror(errno));
	kvm_x86_state_cleanup(state);
	kvm_vm_free(vm);
}

/*
 * What KVM_GET_MSR_INDEX_LIST names depends on the CPU: one that is not there on this
 * one, and 0, is no loss.
 */
static void restore_msrs(struct kvm_vcpu *vcpu, struct kvm_msrs *msrs)
{
	u32 i;

	for (i = 0; i < msrs->nmsrs; i++) {
		const struct kvm_msr_entry *msr = &msrs->entries[i];

		if (_vcpu_set_msr(vcpu, msr->index, msr->data) == 1 || !msr->data)
			continue;
		printf("KVM refuses MSR %#x with the value %#llx\n", msr->index, msr->data);
		exit(EXIT_FAILURE);
	}
	msrs->nmsrs = 0;
}

static void restore(const char *name)
{
	FILE *file = open_file(name, "r");
	struct kvm_lapic_state apic;
	struct kvm_x86_state *state;
	struct kvm_cpuid2 *cpuid;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	u32 nr, result;

	vm = pmu_vm_create(&vcpu, guest_count);
	get(file, &nr, sizeof(nr));
	cpuid = malloc(cpuid_size(nr));
	get(file, cpuid, cpuid_size(nr));
	get(file, &nr, sizeof(nr));
	state = malloc(state_size(nr));
	get(file, state, state_size(nr));
	state->xsave = malloc(xsave_size(vm));
	get(file, state->xsave, xsave_size(vm));
	get(file, &apic, sizeof(apic));
	get_memory(file, vm);
	fclose(file);

	sync_global_from_guest(vm, shape);
	stop_exits = !guest_has_all_counters();
	sync_global_to_guest(vm, stop_exits);
	vcpu_init_cpuid(vcpu, cpuid);
	vcpu_sregs_set(vcpu, &state->sregs);
	restore_msrs(vcpu, &state->msrs);
	vcpu_load_state(vcpu, state);
	vcpu_ioctl(vcpu, KVM_SET_LAPIC, &apic);
	kvm_x86_state_cleanup(state);
	free(cpuid);

	do {
		vcpu_run(vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	} while (vcpu->run->io.port == TEST_PORT);
	TEST_ASSERT_EQ(vcpu->run->io.port, RESULT_PORT);
	result = *(u32 *)((u8 *)vcpu->run + vcpu->run->io.data_offset);
	TEST_ASSERT(result == ALL_IS_RIGHT, "Counter or MSR %#x is wrong", result);
	puts("exact");
	kvm_vm_free(vm);
}

int main(int argc, char *argv[])
{
	const char *missing = pmu_missing();

	if (argc == 4 && !strcmp(argv[1], "save")) {
		TEST_ASSERT(!missing, "%s", missing);
		save(argv[2], strtoul(argv[3], NULL, 0));
	} else if (argc == 3 && !strcmp(argv[1], "restore")) {
		restore(argv[2]);
	} else {
		TEST_FAIL("carried_guest save FILE COUNTERS, or carried_guest restore FILE");
	}
	return EXIT_SUCCESS;
}
