// SPDX-License-Identifier: GPL-2.0
/*
 * bare-guest IMAGE: runs a program that needs no operating system as a guest of
 * KVM, with all that KVM offers, as the machine itself would run it: 64-bit mode,
 * memory mapped one to one; the end port ends it.  Its data port takes addresses:
 * there lies how many words follow, and they, and this goes to stdout.
 */
#include <elf.h>
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define DATA_PORT	0xe9
#define END_PORT	0xf4

#define MEMORY		(64ul << 20)
#define PML4		0x9000ul
#define PDPT		0xa000ul
#define PAGE_1G		0x83		/* present, writable, large */
#define TABLE		0x03		/* present, writable */
#define CR0_PE		(1ul << 0)
#define CR0_PG		(1ul << 31)
#define CR4_PAE		(1ul << 5)
#define EFER_LMA_LME	0x500
#define MAX_LEAVES	256

static char *memory;

static int control(int fd, unsigned long request, const char *name, void *argument)
{
	int result = ioctl(fd, request, argument);

	if (result < 0)
		err(1, "%s", name);
	return result;
}
#define CONTROL(fd, request, argument) control(fd, request, #request, (void *)(argument))

/* Loads an ELF file; the result is its entry. */
static uint64_t load(const char *path)
{
	FILE *file = fopen(path, "r");
	Elf64_Ehdr header;
	Elf64_Phdr segment;
	int i;

	if (!file || fread(&header, sizeof(header), 1, file) != 1)
		err(1, "%s", path);
	for (i = 0; i < header.e_phnum; i++) {
		fseek(file, header.e_phoff + i * sizeof(segment), SEEK_SET);
		if (fread(&segment, sizeof(segment), 1, file) != 1)
			err(1, "%s", path);
		if (segment.p_type != PT_LOAD)
			continue;
		if (segment.p_memsz > MEMORY || segment.p_paddr > MEMORY - segment.p_memsz)
			errx(1, "%s: too large", path);
		fseek(file, segment.p_offset, SEEK_SET);
		if (fread(memory + segment.p_paddr, 1, segment.p_filesz, file) != segment.p_filesz)
			err(1, "%s", path);
	}
	fclose(file);
	return header.e_entry;
}

static void set_cpuid(int kvm, int vcpu)
{
	static struct {
		struct kvm_cpuid2 header;
		struct kvm_cpuid_entry2 entries[MAX_LEAVES];
	} cpuid = { .header.nent = MAX_LEAVES };

	CONTROL(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
	CONTROL(vcpu, KVM_SET_CPUID2, &cpuid);
}

static void set_registers(int vcpu, uint64_t entry)
{
	struct kvm_segment code = {
		.selector = 0x08, .type = 0xb, .present = 1, .s = 1, .l = 1, .g = 1,
		.limit = 0xffffffff,
	};
	struct kvm_segment data = {
		.selector = 0x10, .type = 0x3, .present = 1, .s = 1, .db = 1, .g = 1,
		.limit = 0xffffffff,
	};
	struct kvm_regs regs = { .rip = entry, .rflags = 2 };
	struct kvm_sregs sregs;

	*(uint64_t *)(memory + PML4) = PDPT | TABLE;
	*(uint64_t *)(memory + PDPT) = PAGE_1G;
	CONTROL(vcpu, KVM_GET_SREGS, &sregs);
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr3 = PML4;
	sregs.cr4 |= CR4_PAE;
	sregs.cr0 |= CR0_PE | CR0_PG;
	sregs.efer |= EFER_LMA_LME;
	CONTROL(vcpu, KVM_SET_SREGS, &sregs);
	CONTROL(vcpu, KVM_SET_REGS, &regs);
}

static void send(uint32_t address)
{
	uint64_t words;

	if (address > MEMORY - sizeof(words))
		errx(1, "the guest sends from 0x%x", address);
	memcpy(&words, memory + address, sizeof(words));
	if (words >= (MEMORY - address) / sizeof(words))
		errx(1, "the guest sends %lu words", words);
	if (fwrite(memory + address, sizeof(words), 1 + words, stdout) != 1 + words)
		err(1, "stdout");
}

/* Whether the guest goes on. */
static int handle_exit(struct kvm_run *run)
{
	char *bytes = (char *)run + run->io.data_offset;
	uint32_t address;

	if (run->exit_reason != KVM_EXIT_IO)
		errx(1, "unexpected exit %u", run->exit_reason);
	if (run->io.direction == KVM_EXIT_IO_IN) {
		memset(bytes, 0, run->io.size * run->io.count);
		return 1;
	}
	if (run->io.port == DATA_PORT) {
		memcpy(&address, bytes, sizeof(address));
		send(address);
	}
	return run->io.port != END_PORT;
}

int main(int argc, char **argv)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY };
	int kvm, vm, vcpu, size;
	struct kvm_run *run;

	if (argc != 2)
		errx(2, "usage: bare-guest IMAGE");
	kvm = open("/dev/kvm", O_RDWR);
	if (kvm < 0)
		err(1, "/dev/kvm");
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size = CONTROL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (memory == MAP_FAILED)
		err(1, "mmap");

	vm = CONTROL(kvm, KVM_CREATE_VM, 0);
	region.userspace_addr = (uintptr_t)memory;
	CONTROL(vm, KVM_SET_TSS_ADDR, 0xfffbd000);
	CONTROL(vm, KVM_CREATE_IRQCHIP, 0);
	CONTROL(vm, KVM_SET_USER_MEMORY_REGION, &region);
	vcpu = CONTROL(vm, KVM_CREATE_VCPU, 0);
	run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		err(1, "mmap");
	set_cpuid(kvm, vcpu);
	set_registers(vcpu, load(argv[1]));
	do {
		CONTROL(vcpu, KVM_RUN, 0);
	} while (handle_exit(run));
	return fflush(stdout) ? 1 : 0;
}
