/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Intel Processor Trace (PT) as a guest sees it, and as an event of the host.
 */
#ifndef SELFTEST_MVPMU_GUEST_PT_H
#define SELFTEST_MVPMU_GUEST_PT_H

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/perf_event.h>

#include "guest_pmu.h"

#define X86_FEATURE_PT		KVM_X86_CPU_FEATURE(0x7, 0, EBX, 25)
#define X86_PROPERTY_PT_RANGES	KVM_X86_CPU_PROPERTY(0x14, 1, EAX, 0, 2)
#define PT_LEAF			0x14

#define PT_NR_RANGES		4

#define CTL_TRACE_EN		BIT_ULL(0)
#define CTL_OS			BIT_ULL(2)
#define CTL_USER		BIT_ULL(3)
#define CTL_FABRIC_EN		BIT_ULL(6)
#define CTL_CR3_FILTER		BIT_ULL(7)
#define CTL_TOPA		BIT_ULL(8)
#define CTL_MTC_EN		BIT_ULL(9)
#define CTL_BRANCH_EN		BIT_ULL(13)
#define CTL_ADDR_CFG(n, cfg)	((u64)(cfg) << (32 + 4 * (n)))

#define STATUS_ERROR		BIT_ULL(4)
#define STATUS_STOPPED		BIT_ULL(5)

#define TOPA_END		BIT_ULL(0)
#define TOPA_INT		BIT_ULL(2)
#define TOPA_STOP		BIT_ULL(4)

#define STATUS_TOPA_PMI		BIT_ULL(55)	/* of GLOBAL_STATUS */

/* All registers of a guest's PT; those of ranges that it lacks are #GP. */
static const u32 pt_msrs[] = {
	MSR_IA32_RTIT_CTL, MSR_IA32_RTIT_STATUS, MSR_IA32_RTIT_OUTPUT_BASE,
	MSR_IA32_RTIT_OUTPUT_MASK, MSR_IA32_RTIT_CR3_MATCH,
	MSR_IA32_RTIT_ADDR0_A, MSR_IA32_RTIT_ADDR0_B,
	MSR_IA32_RTIT_ADDR1_A, MSR_IA32_RTIT_ADDR1_B,
	MSR_IA32_RTIT_ADDR2_A, MSR_IA32_RTIT_ADDR2_B,
	MSR_IA32_RTIT_ADDR3_A, MSR_IA32_RTIT_ADDR3_B,
};

/* Host: a line of a file of one word. */
static inline int read_word(const char *path, char *word, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, word, size - 1);
	close(fd);
	TEST_ASSERT(n > 0, "Cannot read %s", path);
	word[n] = 0;
	word[strcspn(word, "\n")] = 0;
	return 0;
}

/* Host: whether mvpmu was loaded with this value of the parameter pt. */
static inline bool pt_mode_is(const char *mode)
{
	char value[16];

	return !read_word("/sys/module/mvpmu/parameters/pt", value, sizeof(value)) &&
	       !strcmp(value, mode);
}

/* Host: the skip reason when guests have no PT, else NULL. */
static inline const char *pt_missing(void)
{
	const char *missing = pmu_missing();

	if (!missing && !pt_mode_is("host_guest"))
		missing = "mvpmu is not loaded with pt=host_guest";
	return missing;
}

/* Host: the type of perf's events of PT, or -1. */
static inline int pt_type(void)
{
	char value[16];

	return read_word("/sys/bus/event_source/devices/intel_pt/type", value, sizeof(value)) ?
	       -1 : atoi(value);
}

#define PT_DATA_PAGES	64
#define PT_MAX_TRACE	(16ul << 20)

/* An event of the host, with its buffers. */
struct host_pt {
	int fd;
	struct perf_event_mmap_page *page;
	u8 *aux;
	size_t size;
	/* What was read so far, unless only its length is wanted. */
	u8 *trace;
	bool drops;
	u64 traced;
	/* AUX records so far: all, and those of a trace that has gaps, or was cut. */
	unsigned int records, partial, truncated;
	/* The buffer is written over and over. */
	bool overwrites;
	/* Samples with a part of the trace, and those whose part is not its end. */
	unsigned int samples, misplaced;
};

/* Host: one of CPU 0, with all that runs there, but for guests' counters; disabled. */
static inline struct host_pt open_host_pt_with(struct perf_event_attr *attr, size_t size,
					       int group, int protection)
{
	struct host_pt pt = { .size = size, .overwrites = !(protection & PROT_WRITE) };
	size_t data = (1 + PT_DATA_PAGES) * getpagesize();

	attr->type = pt_type();
	attr->size = sizeof(*attr);
	attr->disabled = group < 0;
	attr->exclude_guest = 1;
	pt.fd = syscall(SYS_perf_event_open, attr, -1, 0, group, 0);
	TEST_ASSERT(pt.fd >= 0, __KVM_SYSCALL_ERROR("perf_event_open", pt.fd));
	pt.page = mmap(NULL, data, PROT_READ | PROT_WRITE, MAP_SHARED, pt.fd, 0);
	TEST_ASSERT(pt.page != MAP_FAILED, "mmap of the data");
	pt.trace = malloc(PT_MAX_TRACE);
	TEST_ASSERT(pt.trace, "malloc");
	pt.page->aux_offset = data;
	pt.page->aux_size = size;
	pt.aux = mmap(NULL, size, protection, MAP_SHARED, pt.fd, data);
	TEST_ASSERT(pt.aux != MAP_FAILED, "mmap of the trace");
	return pt;
}

static inline struct host_pt open_host_pt(struct perf_event_attr *attr, size_t size,
					  int group)
{
	return open_host_pt_with(attr, size, group, PROT_READ | PROT_WRITE);
}

/*
 * Of a sample: IP, size, and so many bytes of trace.  Tracing was switched off for it,
 * so they end with TIP.PGD, with an address of 0, 2, 4 or 6 bytes.
 */
static inline void read_pt_sample(struct host_pt *pt, const u8 *data, u64 at)
{
	static const u8 pgd[][2] = { { 1, 0x01 }, { 3, 0x21 }, { 5, 0x41 }, { 7, 0x61 } };
	u64 ring = pt->page->data_size, size;
	bool found = false;
	unsigned int i;

	at += sizeof(struct perf_event_header) + 8;
	size = *(u64 *)&data[at % ring];
	if (!size)
		return;
	at += 8 + size;
	for (i = 0; i < ARRAY_SIZE(pgd); i++)
		found |= data[(at - pgd[i][0]) % ring] == pgd[i][1];
	pt->samples++;
	pt->misplaced += !found;
}

static inline void close_host_pt(struct host_pt *pt)
{
	free(pt->trace);
	munmap(pt->aux, pt->size);
	munmap(pt->page, (1 + PT_DATA_PAGES) * getpagesize());
	close(pt->fd);
}

/* Host: takes all there is of the trace, and of the records about it. */
static inline void read_host_pt(struct host_pt *pt)
{
	struct perf_event_header *header;
	u64 size = pt->page->data_size, tail = pt->page->data_tail, flags, head;
	u8 *data = (u8 *)pt->page + pt->page->data_offset;

	while (tail < READ_ONCE(pt->page->data_head)) {
		header = (void *)&data[tail % size];
		if (header->type == PERF_RECORD_AUX) {
			/* After the header: offset, size, flags. */
			flags = *(u64 *)&data[(tail + sizeof(*header) + 16) % size];
			pt->records++;
			pt->partial += !!(flags & PERF_AUX_FLAG_PARTIAL);
			pt->truncated += !!(flags & PERF_AUX_FLAG_TRUNCATED);
		} else if (header->type == PERF_RECORD_SAMPLE && pt->overwrites) {
			read_pt_sample(pt, data, tail);
		}
		tail += header->size;
	}
	WRITE_ONCE(pt->page->data_tail, tail);

	if (pt->overwrites)
		return;
	head = READ_ONCE(pt->page->aux_head);
	if (pt->drops)
		pt->traced = head;
	TEST_ASSERT(pt->drops || head <= PT_MAX_TRACE, "The trace is too long");
	for (; pt->traced < head; pt->traced++)
		pt->trace[pt->traced] = pt->aux[pt->traced % pt->size];
	WRITE_ONCE(pt->page->aux_tail, head);
}

#endif /* SELFTEST_MVPMU_GUEST_PT_H */
