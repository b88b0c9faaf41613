// SPDX-License-Identifier: GPL-2.0
/*
 * Runs programs, lists of operations on the PMU and of things to count, and
 * sends what each operation has read to the data port.
 *
 * It knows nothing of vendors, and, but for how it sends, not whether it runs on
 * the machine or in a guest.  The operations and their numbers are those of diff-test/src/op.rs.
 */
#include <stddef.h>
#include <stdint.h>

enum {
	OP_WRMSR = 1,	/* a: register, b: value */
	OP_RDMSR,	/* a: register */
	OP_RDPMC,	/* a: counter */
	OP_LOOP,	/* a: iterations of two instructions, one a branch */
	OP_CALLS,	/* a: calls, each with its return */
	OP_COPY,	/* a: bytes, by one instruction */
	OP_CPUID,	/* a: leaf; what it says is not looked at */
	OP_OUT,		/* a: port */
	OP_IN,		/* a: port; what it says is not looked at */
	OP_TOUCH,	/* a: register that is read and not looked at */
};

struct op {
	uint64_t kind, a, b;
};

/* The runner finds the place by the first two words. */
#define PROGRAMS_MAGIC	0x4d41524750464944ull	/* "DIFPGRAM" */
#define PROGRAMS_SIZE	(4 << 20)

static volatile struct {
	uint64_t magic[2];
	/* Then, for each program, the number of its operations, and these. */
	uint64_t nr, words[PROGRAMS_SIZE / 8];
} programs __attribute__((section(".programs"), aligned(4096))) = {
	.magic = { PROGRAMS_MAGIC, ~PROGRAMS_MAGIC },
};

/* Instead of a value: #GP. No register has a value with this in its upper half. */
#define FAULT		0xfa17ull << 48

#define MAX_OPS		1024
#define COPY_MAX	4096

uint64_t faults;	/* counted by on_gp */
static uint64_t results[1 + MAX_OPS];
static uint8_t source[COPY_MAX], target[COPY_MAX];

static uint64_t unless_fault(uint64_t before, uint64_t value)
{
	return *(volatile uint64_t *)&faults == before ? value : FAULT;
}

static uint64_t perform(uint64_t kind, uint64_t a, uint64_t b)
{
	uint32_t low = 0, high = 0, ebx;
	uint64_t before = faults;
	void *to = target, *from = source;

	switch (kind) {
	case OP_WRMSR:
		asm volatile("wrmsr" : : "c"(a), "a"(b), "d"(b >> 32) : "memory");
		return unless_fault(before, 0);
	case OP_RDMSR:
		asm volatile("rdmsr" : "+a"(low), "+d"(high) : "c"(a) : "memory");
		return unless_fault(before, (uint64_t)high << 32 | low);
	case OP_RDPMC:
		asm volatile("rdpmc" : "+a"(low), "+d"(high) : "c"(a) : "memory");
		return unless_fault(before, (uint64_t)high << 32 | low);
	case OP_LOOP:
		asm volatile("1: dec %0; jnz 1b" : "+r"(a) : : "cc");
		return 0;
	case OP_CALLS:
		asm volatile("jmp 2f; 1: ret; 2: call 1b; dec %0; jnz 2b" : "+r"(a) : : "cc", "memory");
		return 0;
	case OP_COPY:
		asm volatile("rep movsb" : "+c"(a), "+D"(to), "+S"(from) : : "memory");
		return 0;
	case OP_CPUID:
		asm volatile("cpuid" : "+a"(a), "=b"(ebx), "+c"(low), "=d"(high) : : "memory");
		return 0;
	case OP_OUT:
		asm volatile("outb %%al, %%dx" : : "a"(0), "d"(a) : "memory");
		return 0;
	case OP_IN:
		asm volatile("inb %%dx, %%al" : "=a"(low) : "d"(a) : "memory");
		return 0;
	case OP_TOUCH:
		asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(a) : "memory");
		return 0;
	}
	return FAULT;
}

/*
 * The data port takes bytes, and says its number when it is read.  Where it says
 * nothing, in a guest, each byte would be an exit: it takes the address there.
 */
#define DATA_PORT	0xe9

static void send(const void *bytes, size_t length)
{
	uint8_t port;

	asm volatile("inb %%dx, %%al" : "=a"(port) : "d"(DATA_PORT));
	if (port == DATA_PORT)
		asm volatile("rep outsb" : "+S"(bytes), "+c"(length) : "d"(DATA_PORT) : "memory");
	else
		asm volatile("outl %%eax, %%dx" : : "a"((uint32_t)(uintptr_t)bytes), "d"(DATA_PORT)
			     : "memory");
}

void run(void)
{
	const volatile uint64_t *word = programs.words;

	for (uint64_t nr = programs.nr; nr; nr--) {
		uint64_t ops = *word++;

		results[0] = ops;
		for (uint64_t i = 0; i < ops; i++, word += 3)
			results[1 + i] = perform(word[0], word[1], word[2]);
		send(results, 8 * (1 + ops));
	}
}
