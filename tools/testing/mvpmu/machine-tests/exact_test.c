// SPDX-License-Identifier: GPL-2.0
/*
 * The machine counts exactly, whatever interrupts the flow of instructions.
 *
 * The comment above a test names a change to the machine that makes it fail.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "counter.h"
#include "tap.h"
#include "vendor.h"

#define PAGES	1000

static const struct vendor *vendor;
static struct counter instructions;
static char *lazy;	/* PAGES pages that are not there yet */
static char *buffer;	/* 1 MiB that is */

static char *lazy_pages(void)
{
	madvise(lazy, PAGES * 4096, MADV_DONTNEED);
	return lazy;
}

#define expect(name, expected, a, b, code) \
	tap_equal(counted(instructions, a, b, code) - READING, expected, name)

/* Break: Vcpu::retire_one() does nothing. */
static void plain(void)
{
	expect("nothing", 0, 0, 0, "");
	expect("ten instructions", 10, 0, 0, ".rept 10; nop; .endr");
}

/* The same page, mapped again and again, but not present yet. */
static char *aliases(int fd)
{
	char *region = mmap(NULL, PAGES * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (int i = 0; i < PAGES; i++)
		if (mmap(region + i * 4096, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 fd, 0) == MAP_FAILED)
			err(1, "mmap of an alias");
	return region;
}

/* Break: discon::happened() ignores EXCEPTION. */
static void page_fault_of_a_branch(void)
{
	int fd = memfd_create("target", 0);
	char *region, *page;

	if (fd < 0 || ftruncate(fd, 4096))
		err(1, "memfd");
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	region = aliases(fd);
	expect("page faults of a block's last instruction", 4 + 4 * PAGES, region, page,
	       "mov %%r13, %%rdi; mov $1000, %%r8d; lea 2f(%%rip), %%rax; mov %%rax, (%%r14);"
	       "1: jmp *(%%rdi); 2: add $4096, %%rdi; dec %%r8d; jnz 1b");
	munmap(region, PAGES * 4096);
	munmap(page, 4096);
	close(fd);
}

/* Break: Vcpu::broke_at() takes nothing back. */
static void page_faults(void)
{
	expect("page faults", 2 + 4 * PAGES, lazy_pages(), PAGES,
	       "mov %%r13, %%rdi; mov %%r14d, %%r8d;"
	       "1: movb $1, (%%rdi); add $4096, %%rdi; dec %%r8d; jnz 1b");
	expect("page faults within a string instruction", 2 + 4 * PAGES, lazy_pages(), PAGES,
	       "mov %%r13, %%rdi; mov %%r14d, %%r8d;"
	       "1: mov $4096, %%ecx; rep stosb; dec %%r8d; jnz 1b");
}

/* Break: rep::entered() takes each portion for an instruction. */
static void string_instruction(void)
{
	expect("a long string instruction", 4, lazy, buffer,
	       "mov %%r13, %%rdi; mov %%r14, %%rsi; mov $0x80000, %%ecx; rep movsb");
	expect("a string instruction in a loop", 2 + 5 * 100, lazy, buffer,
	       "mov %%r14, %%rsi; mov $100, %%r8d;"
	       "1: mov %%r13, %%rdi; mov $64, %%ecx; rep movsb; dec %%r8d; jnz 1b");
	expect("a string instruction without iterations", 2, lazy, 0,
	       "xor %%ecx, %%ecx; rep stosb");
}

/* Break: Block::counts_from() starts one instruction later. */
static void system_instructions(void)
{
	expect("system calls", 1 + 4 * 100, 0, 0,
	       "mov $100, %%r8d; 1: mov $39, %%eax; syscall; dec %%r8d; jnz 1b");
	expect("CPUID", 2 + 4 * 100 + 1, 0, 0,
	       "mov $100, %%r8d; mov %%rbx, %%r9;"
	       "1: mov $0x80000022, %%eax; cpuid; dec %%r8d; jnz 1b; mov %%r9, %%rbx");
	expect("RDTSC", 1 + 3 * 100, 0, 0,
	       "mov $100, %%r8d; 1: rdtsc; dec %%r8d; jnz 1b");
}

/* Break: Block::counts_from() starts one instruction later. */
static void flow(void)
{
	expect("calls and returns", 2 + 4 * 1000, 0, 0,
	       "mov $1000, %%r8d; jmp 2f; 1: ret; 2: call 1b; dec %%r8d; jnz 2b");
	expect("atomic instructions", 1 + 3 * 1000, buffer, 0,
	       "mov $1000, %%r8d; 1: lock xadd %%r9, (%%r13); dec %%r8d; jnz 1b");
	expect("a long loop, with the timer's interrupts", 1 + 100000000, 0, 0,
	       "mov $50000000, %%r8d; 1: dec %%r8d; jnz 1b");
}

/* Break: left_open() does nothing. */
static void self_modifying_code(void)
{
	/* movb $0x90, 2(%rip): the second nop; 4 nops; ret */
	static const unsigned char code[] = {
		0xc6, 0x05, 0x01, 0, 0, 0, 0x90, 0x90, 0x90, 0x90, 0x90, 0xc3
	};
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memcpy(page, code, sizeof(code));
	for (int i = 0; i < 3; i++)
		expect("a store into its own block", 1 + 6, page, 0, "call *%%r13");
	munmap(page, 4096);
}

/*
 * QEMU keeps translations by physical address: code runs wherever it is mapped.
 * Break: msr.rs takes the instruction's address from the time of its translation.
 */
static void one_page_at_two_addresses(void)
{
	/* mov %r12d, %ecx; rdpmc; movb $0, (%r14); ret */
	static const unsigned char code[] = {
		0x44, 0x89, 0xe1, 0x0f, 0x33, 0x41, 0xc6, 0x06, 0, 0xc3
	};
	int fd = memfd_create("code", 0);
	char *page, *last = MAP_FAILED;

	if (fd < 0 || write(fd, code, sizeof(code)) != sizeof(code))
		err(1, "memfd");
	for (int i = 0; i < 4; i++) {
		page = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
		if (i)
			munmap(last, 4096);
		expect("RDPMC and a page fault in a page at another address", 1 + 4,
		       page, lazy_pages(), "call *%%r13");
		last = page;
	}
	munmap(last, 4096);
	close(fd);
}

/* Break: leave::restore() does nothing: then not even the kernel starts. */
static void flags_across_rdpmc(void)
{
	int wrong = 0;

	for (int i = 0; i < 1000; i++) {
		int carry = 0;

		asm volatile("test %%ecx, %%ecx; jmp 1f;"
			     "1: mov $-1, %%r8d; add $1, %%r8d; rdpmc; adc $0, %[carry]"
			     : [carry] "+r"(carry)
			     : "c"(instructions.index) : "eax", "edx", "r8", "cc");
		wrong += carry != 1;
	}
	tap_equal(wrong, 0, "RDPMC leaves the flags alone");
}

/* Break: Kind::is_branch() forgets Kind::Branch. */
static void branches(void)
{
	struct counter counter = counter_open(vendor->branches);

	tap_equal(counted(counter, 0, 0,
			  "mov $1000, %%r8d; jmp 2f; 1: ret; 2: call 1b; dec %%r8d; jnz 2b"),
		  1 + 3 * 1000, "branches");
	tap_equal(counted(counter, lazy_pages(), PAGES,
			  "mov %%r13, %%rdi; mov %%r14d, %%r8d;"
			  "1: movb $1, (%%rdi); add $4096, %%rdi; dec %%r8d; jnz 1b"),
		  PAGES, "branches after page faults");
	counter_close(counter);
}

static __attribute__((noinline)) uint64_t access_memory(struct counter counter)
{
	return counted(counter, buffer, buffer + 64,
		       "mov $100, %%r8d;"
		       "1: mov (%%r13), %%eax; mov (%%r13), %%eax; mov %%eax, (%%r14);"
		       "addl $1, (%%r13); addl $1, (%%r14); lock xadd %%eax, (%%r14);"
		       "dec %%r8d; jnz 1b");
}

/* Break: demand::follow() does not have everything translated anew. */
static void memory_accesses(void)
{
	/* Reads, writes, and accesses that are both. */
	const uint64_t both = vendor->loads_include_load_stores ? 300 : 0;
	const struct {
		uint64_t event, expected;
		const char *name;
	} tests[] = {
		{ vendor->loads, 200 + both, "loads" },
		{ vendor->stores, 100 + both, "stores" },
		{ vendor->load_stores, both ? 600 : 300, "load-stores" },
		{ vendor->loads | vendor->stores | vendor->load_stores, 600, "all memory accesses" },
	};

	/* The machine has seen the code before it is to count memory accesses. */
	tap_equal(access_memory(instructions) - READING, 1 + 100 * 8, "instructions that access memory");
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
		struct counter counter = counter_open(tests[i].event);

		tap_equal(access_memory(counter), tests[i].expected, tests[i].name);
		counter_close(counter);
	}
}

static sigjmp_buf after_fault;
static volatile uint64_t fault_rip;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	fault_rip = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
	siglongjmp(after_fault, 1);
}

/* Whether RDPMC of a counter is #GP, at the RDPMC itself. */
static bool rdpmc_faults(uint32_t index)
{
	extern char rdpmc_that_faults[];

	fault_rip = 0;
	if (!sigsetjmp(after_fault, 1))
		asm volatile(".globl rdpmc_that_faults; rdpmc_that_faults: rdpmc"
			     : : "c"(index) : "eax", "edx");
	return fault_rip == (uint64_t)rdpmc_that_faults;
}

/* Break: msr::replace() takes Err for Ok. */
static void bad_index(void)
{
	tap_result(!rdpmc_faults(vendor->last_rdpmc), "RDPMC of the last counter");
	tap_result(rdpmc_faults(vendor->no_rdpmc), "RDPMC behind the last counter faults");
	if (vendor->fixed_rdpmc) {
		unsigned int eax, ebx, ecx, edx, behind;

		__cpuid(0xa, eax, ebx, ecx, edx);
		behind = vendor->fixed_rdpmc + (edx & 0x1f);
		tap_result(!rdpmc_faults(behind - 1), "RDPMC of the last fixed counter");
		tap_result(rdpmc_faults(behind), "RDPMC behind the last fixed counter faults");
	}
	tap_result(rdpmc_faults(0xffffffff), "RDPMC of a counter far off faults");
}

/* Break: msr::execute_rdpmc() does not look at CR4.PCE. */
static void not_allowed(void)
{
	tap_result(rdpmc_faults(0), "RDPMC without CR4.PCE faults");
}

static void run_on(long cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "sched_setaffinity");
}

static void *count_on_cpu(void *cpu)
{
	uint64_t wrong = 0;
	struct counter counter;

	run_on((long)cpu);
	counter = counter_open(vendor->instructions);
	for (int i = 0; i < 100; i++)
		wrong += counted(counter, 0, 0,
				 "mov $100000, %%r8d; 1: dec %%r8d; jnz 1b") - READING != 200001;
	counter_close(counter);
	return (void *)wrong;
}

/* Break: board::find() gives every vCPU the entry of vCPU 0. */
static void all_cpus_at_once(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t threads[cpus];
	uint64_t wrong = 0;

	for (long cpu = 0; cpu < cpus; cpu++)
		pthread_create(&threads[cpu], NULL, count_on_cpu, (void *)cpu);
	for (long cpu = 0; cpu < cpus; cpu++) {
		void *result;

		pthread_join(threads[cpu], &result);
		wrong += (uint64_t)result;
	}
	tap_equal(wrong, 0, "every CPU counts its own");
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	sigaction(SIGSEGV, &action, NULL);
	lazy = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	buffer = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (lazy == MAP_FAILED || buffer == MAP_FAILED)
		err(1, "mmap");
	madvise(lazy, PAGES * 4096, MADV_NOHUGEPAGE);
	run_on(0);
	vendor = this_vendor();
	instructions = counter_open(vendor->instructions);

	printf("TAP version 13\n");
	plain();
	page_faults();
	page_fault_of_a_branch();
	string_instruction();
	system_instructions();
	flow();
	self_modifying_code();
	one_page_at_two_addresses();
	flags_across_rdpmc();
	branches();
	memory_accesses();
	bad_index();
	all_cpus_at_once();
	counter_close(instructions);
	not_allowed();
	return tap_done();
}
