/* SPDX-License-Identifier: GPL-2.0 */
/* Counters of the calling thread through perf, read with RDPMC. */
#ifndef COUNTER_H
#define COUNTER_H

#include <err.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct counter {
	int fd;
	struct perf_event_mmap_page *page;
	/* What RDPMC wants in ECX. */
	uint32_t index;
};

/* Counts a raw event in user mode. */
static inline struct counter counter_open(uint64_t event)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_RAW,
		.size = sizeof(attr),
		.config = event,
		.exclude_kernel = 1,
	};
	struct counter counter;

	counter.fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
	if (counter.fd < 0)
		err(1, "perf_event_open");
	counter.page = mmap(NULL, getpagesize(), PROT_READ, MAP_SHARED, counter.fd, 0);
	if (counter.page == MAP_FAILED)
		err(1, "mmap of a perf event");
	if (!counter.page->cap_user_rdpmc || !counter.page->index)
		errx(1, "the kernel offers no RDPMC");
	counter.index = counter.page->index - 1;
	return counter;
}

static inline void counter_close(struct counter counter)
{
	munmap(counter.page, getpagesize());
	close(counter.fd);
}

/*
 * How far the counter moves while the instructions run. They may use RAX, RCX, RDX, RSI, RDI and
 * R8 to R11, and find a and b in R13 and R14. Reading adds three instructions.
 */
#define counted(counter, a, b, instructions) ({				\
	uint32_t from_, to_;						\
	register uint64_t r12 asm("r12") = (counter).index;		\
	register uint64_t r13 asm("r13") = (uint64_t)(a);		\
	register uint64_t r14 asm("r14") = (uint64_t)(b);		\
									\
	asm volatile("mov %%r12d, %%ecx\n\t"				\
		     "rdpmc\n\t"					\
		     "mov %%eax, %%r15d\n\t"				\
		     instructions "\n\t"				\
		     "mov %%r12d, %%ecx\n\t"				\
		     "rdpmc\n\t"					\
		     "mov %%eax, %[to]\n\t"				\
		     "mov %%r15d, %[from]\n\t"				\
		     : [from] "=r"(from_), [to] "=&r"(to_)		\
		     : "r"(r12), "r"(r13), "r"(r14)			\
		     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9",	\
		       "r10", "r11", "r15", "cc", "memory");		\
	(uint64_t)(uint32_t)(to_ - from_);				\
})
#define READING	3

#endif
