/* SPDX-License-Identifier: GPL-2.0 */
/* In what the PMUs of the two machines differ. */
#ifndef VENDOR_H
#define VENDOR_H

#include <cpuid.h>
#include <stdbool.h>
#include <stdint.h>

struct vendor {
	/* Of the last general purpose counter. */
	uint32_t selector, counter;
	uint32_t last_rdpmc;
	/* The first index that is no counter's. */
	uint32_t no_rdpmc;
	/* The first fixed counter; 0: there is none. */
	uint32_t fixed_rdpmc;

	uint32_t global_status, global_control, status_clear, status_set;

	/* Bits of a selector without its enable bit, of a counter and of the global registers. */
	uint64_t selector_bits, counter_bits, control_bits, status_bits;
	/* WRMSR of others: #GP, or they are dropped. The same for the read-only status. */
	bool undefined_bits_fault;

	uint64_t instructions, branches;
	/* Instructions that only read memory, only write it, do both; or read it, write it. */
	uint64_t loads, stores, load_stores;
	bool loads_include_load_stores;

	/* A PMI comes before the block, or the instruction, after the one that overflows. */
	bool pmi_waits_for_block;
};

static const struct vendor amd = {
	.selector = 0xc001020a, .counter = 0xc001020b,
	.last_rdpmc = 5, .no_rdpmc = 16,
	.global_status = 0xc0000300, .global_control = 0xc0000301,
	.status_clear = 0xc0000302, .status_set = 0xc0000303,
	.selector_bits = 0x0000030fff97ffff, .counter_bits = 0x0000ffffffffffff,
	/* LBRSF and PMCF beside the counters' bits. */
	.control_bits = 0x3f, .status_bits = 0x0c0000000000003f,
	.instructions = 0xc0, .branches = 0xc2,
	.loads = 0x129, .stores = 0x229, .load_stores = 0x429,
	.pmi_waits_for_block = true,
};

static const struct vendor intel = {
	.selector = 0x18d, .counter = 0x4c8,
	.last_rdpmc = 7, .no_rdpmc = 8, .fixed_rdpmc = 1 << 30,
	.global_status = 0x38e, .global_control = 0x38f,
	.status_clear = 0x390, .status_set = 0x391,
	.selector_bits = 0xff9fffff, .counter_bits = 0x0000ffffffffffff,
	/* LBR_FRZ, CTR_FRZ, OVF_UNCORE and OVF_BUF beside the counters' bits. */
	.control_bits = 0x7000000ff, .status_bits = 0x6c000007000000ff,
	.undefined_bits_fault = true,
	.instructions = 0xc0, .branches = 0xc4,
	.loads = 0x81d0, .stores = 0x82d0, .load_stores = 0x83d0,
	.loads_include_load_stores = true,
};

static inline bool is_intel(void)
{
	unsigned int eax, ebx, ecx, edx;

	__cpuid(0, eax, ebx, ecx, edx);
	return ebx == signature_INTEL_ebx;
}

static inline const struct vendor *this_vendor(void)
{
	return is_intel() ? &intel : &amd;
}

#endif
