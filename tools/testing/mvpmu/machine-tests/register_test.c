// SPDX-License-Identifier: GPL-2.0
/*
 * The PMU's registers as the host kernel sees them, through the msr driver.
 *
 * register_test [on|old|off]: which PMU the machine has.
 * The comment above a test names a change to the machine that makes it fail.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "tap.h"
#include "vendor.h"

#define PERF_CTL(n)	(0xc0010200 + 2 * (n))
#define PERF_CTR(n)	(0xc0010201 + 2 * (n))
#define LEGACY_CTL(n)	(0xc0010000 + (n))
#define LEGACY_CTR(n)	(0xc0010004 + (n))

#define INTEL_PMC7		0xc8
#define INTEL_FIXED_CTR_CTRL	0x38d
#define INTEL_GLOBAL_INUSE	0x392

static const struct vendor *vendor;
static int msrs;

/* What was read instead of a value: #GP. */
#define FAULT	0xdeadfa17deadfa17

static uint64_t rdmsr(uint32_t msr)
{
	uint64_t value;

	if (pread(msrs, &value, sizeof(value), msr) == sizeof(value))
		return value;
	if (errno != EIO)
		err(1, "MSR %#x", msr);
	return FAULT;
}

/* Writes, and reads what is there then. */
static uint64_t wrmsr(uint32_t msr, uint64_t value)
{
	if (pwrite(msrs, &value, sizeof(value), msr) == sizeof(value))
		return rdmsr(msr);
	if (errno != EIO)
		err(1, "MSR %#x", msr);
	return FAULT;
}

/* Break: cpuid::announce() leaves EAX alone. */
static void cpuid_amd(bool core, bool v2)
{
	unsigned int eax, ebx, ecx, edx;

	__cpuid(0x80000001, eax, ebx, ecx, edx);
	tap_equal(ecx >> 23 & 1, core, "CPUID: PERFCTR_CORE");
	__cpuid(0x80000022, eax, ebx, ecx, edx);
	tap_equal(eax & 1, v2, "CPUID: PerfMonV2");
	tap_equal(ebx & 0xf, v2 ? 6 : 0, "CPUID: number of core counters");
}

/* What the CPU says: 4 is Skylake, 5 what came after. */
static unsigned int intel_version(void)
{
	unsigned int eax, ebx, ecx, edx;

	__cpuid(0xa, eax, ebx, ecx, edx);
	return eax & 0xff;
}

static unsigned int nr_fixed(unsigned int version)
{
	return version > 4 ? 4 : version ? 3 : 0;
}

/* Break: cpuid.rs leaves leaf 0AH alone. */
static void cpuid_intel(unsigned int version)
{
	unsigned int eax, ebx, ecx, edx;

	__cpuid(0xa, eax, ebx, ecx, edx);
	tap_equal(eax & 0xff, version, "CPUID: version");
	tap_equal(eax >> 8 & 0xff, version ? 8 : 0, "CPUID: number of counters");
	tap_equal(edx & 0x1f, nr_fixed(version), "CPUID: number of fixed counters");
}

/* Writes all ones, but those in except, to a register that has only some bits. */
static void undefined_bits(uint32_t msr, uint64_t except, uint64_t defined, const char *name)
{
	uint64_t expected = vendor->undefined_bits_fault ? FAULT : defined;

	tap_equal(wrmsr(msr, ~except), expected, name);
}

/* Break: Amd::write(), or Intel's, stores what comes. */
static void reserved_bits(bool old)
{
	const uint64_t enable = 1 << 22, last = 1ULL << vendor->last_rdpmc;
	const uint64_t any_thread = old && is_intel() ? 1 << 21 : 0;

	undefined_bits(vendor->selector, enable, vendor->selector_bits,
		       "undefined bits of a selector");
	tap_equal(wrmsr(vendor->selector, vendor->selector_bits | any_thread),
		  vendor->selector_bits | any_thread, "a selector keeps those that are defined");
	tap_equal(wrmsr(vendor->selector, 0), 0, "a selector can be cleared");
	undefined_bits(vendor->counter, 0, vendor->counter_bits, "a counter has 48 bits");
	tap_equal(wrmsr(vendor->counter, vendor->counter_bits), vendor->counter_bits,
		  "a counter keeps them");
	tap_equal(wrmsr(vendor->counter, 0), 0, "a counter can be cleared");
	if (old)
		return;
	undefined_bits(vendor->global_status, 0, 0, "the status cannot be written");
	undefined_bits(vendor->status_set, 0, 0, "undefined bits of the set register");
	tap_equal(wrmsr(vendor->status_set, vendor->status_bits), 0, "the set register reads as 0");
	tap_equal(rdmsr(vendor->global_status), vendor->status_bits, "it sets what is defined");
	tap_equal(wrmsr(vendor->status_clear, vendor->status_bits & ~last), 0,
		  "the clear register reads as 0");
	tap_equal(rdmsr(vendor->global_status), last, "it clears what is given");
	wrmsr(vendor->status_clear, last);
	tap_equal(rdmsr(vendor->global_status), 0, "the status can be cleared");
	undefined_bits(vendor->global_control, 0, vendor->control_bits,
		       "undefined bits of the global control");
	tap_equal(wrmsr(vendor->global_control, vendor->control_bits), vendor->control_bits,
		  "the global control keeps those that are defined");
}

/* Break: Amd::register() knows no legacy names. */
static void legacy_names(void)
{
	for (int n = 0; n < 4; n++) {
		wrmsr(LEGACY_CTL(n), 0x10000 + n);
		tap_equal(rdmsr(PERF_CTL(n)), 0x10000 + n, "a selector's legacy name");
		wrmsr(LEGACY_CTR(n), 0x1234 + n);
		tap_equal(rdmsr(PERF_CTR(n)), 0x1234 + n, "a counter's legacy name");
		wrmsr(PERF_CTL(n), 0);
		wrmsr(PERF_CTR(n), 0);
	}
}

/* Break: Intel::write() does not extend the sign. */
static void narrow_writes(void)
{
	tap_equal(wrmsr(INTEL_PMC7, 0x123456789), 0x23456789, "a narrow write takes 32 bits");
	tap_equal(wrmsr(INTEL_PMC7, 0x80000000), 0xffff80000000, "and extends their sign");
	tap_equal(rdmsr(vendor->counter), 0xffff80000000, "both names are of one counter");
	wrmsr(INTEL_PMC7, 0);
}

/* Break: Intel::write_fixed_ctrl() takes every bit. */
static void fixed_control(unsigned int version)
{
	const bool any_thread = version < 5;

	tap_equal(wrmsr(INTEL_FIXED_CTR_CTRL, 0x888), 0x888, "PMIs of the fixed counters");
	tap_equal(wrmsr(INTEL_FIXED_CTR_CTRL, 0x444), any_thread ? 0x444 : FAULT,
		  "AnyThread of the fixed counters");
	tap_equal(wrmsr(INTEL_FIXED_CTR_CTRL, 1u << 4 * nr_fixed(version)), FAULT,
		  "there is none behind the last");
	tap_equal(wrmsr(INTEL_FIXED_CTR_CTRL, 0), 0, "all can be stopped");
}

static void no_register(uint32_t msr)
{
	tap_equal(rdmsr(msr), FAULT, "there is no such register to read");
	tap_equal(wrmsr(msr, 0), FAULT, "nor to write");
}

static void test_amd(const char *pmu)
{
	bool core = strcmp(pmu, "off"), v2 = !strcmp(pmu, "on");

	cpuid_amd(core, v2);
	if (!core)
		return;
	reserved_bits(!v2);
	legacy_names();
	/* Break: msr::execute() leaves MSRs of another version to QEMU. */
	for (uint32_t msr = vendor->global_status; !v2 && msr <= vendor->status_set; msr++)
		no_register(msr);
}

static void test_intel(const char *pmu)
{
	bool off = !strcmp(pmu, "off"), old = !strcmp(pmu, "old");
	unsigned int version = intel_version();

	if (off || old || version != 4)
		version = off ? 0 : old ? 3 : 5;
	cpuid_intel(version);
	if (off) {
		/* Break: Register::find() looks at no configuration. */
		no_register(vendor->selector);
		no_register(vendor->counter);
		no_register(vendor->global_control);
		return;
	}
	reserved_bits(version < 5);
	narrow_writes();
	fixed_control(version);
	no_register(vendor->selector + 1);
	no_register(vendor->counter + 1);
	if (old) {
		no_register(vendor->status_set);
		no_register(INTEL_GLOBAL_INUSE);
	}
}

int main(int argc, char **argv)
{
	const char *pmu = argc > 1 ? argv[1] : "on";

	msrs = open("/dev/cpu/0/msr", O_RDWR);
	if (msrs < 0)
		err(1, "/dev/cpu/0/msr");
	vendor = this_vendor();
	printf("TAP version 13\n");
	if (is_intel())
		test_intel(pmu);
	else
		test_amd(pmu);
	return tap_done();
}
