// SPDX-License-Identifier: GPL-2.0
/*
 * The PMU's registers as the host kernel sees them, through the msr driver.
 *
 * register_test [on|old|off]: which PMU the machine has.
 * The comment above a test names a change to the machine that makes it fail.
 */
#include <cpuid.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "tap.h"

#define PERF_CTL(n)	(0xc0010200 + 2 * (n))
#define PERF_CTR(n)	(0xc0010201 + 2 * (n))
#define LEGACY_CTL(n)	(0xc0010000 + (n))
#define LEGACY_CTR(n)	(0xc0010004 + (n))
#define GLOBAL_STATUS	0xc0000300
#define GLOBAL_CTL	0xc0000301
#define STATUS_CLR	0xc0000302
#define STATUS_SET	0xc0000303

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
static void cpuid(bool core, bool v2)
{
	unsigned int eax, ebx, ecx, edx;

	__cpuid(0x80000001, eax, ebx, ecx, edx);
	tap_equal(ecx >> 23 & 1, core, "CPUID: PERFCTR_CORE");
	__cpuid(0x80000022, eax, ebx, ecx, edx);
	tap_equal(eax & 1, v2, "CPUID: PerfMonV2");
	tap_equal(ebx & 0xf, v2 ? 6 : 0, "CPUID: number of core counters");
}

/* Break: Amd::write() stores what comes. */
static void reserved_bits(bool v2)
{
	tap_equal(wrmsr(PERF_CTL(5), ~0ULL & ~(1ULL << 22)), 0x0000030fff97ffff,
		  "a selector drops undefined bits");
	tap_equal(wrmsr(PERF_CTL(5), 0), 0, "a selector can be cleared");
	tap_equal(wrmsr(PERF_CTR(5), ~0ULL), 0x0000ffffffffffff, "a counter has 48 bits");
	tap_equal(wrmsr(PERF_CTR(5), 0), 0, "a counter can be cleared");
	if (!v2)
		return;
	tap_equal(wrmsr(GLOBAL_STATUS, ~0ULL), 0, "the status ignores writes");
	tap_equal(wrmsr(STATUS_SET, ~0ULL), 0, "the set register reads as 0");
	tap_equal(rdmsr(GLOBAL_STATUS), 0x3f, "it sets what is defined");
	tap_equal(wrmsr(STATUS_CLR, ~0x20ULL), 0, "the clear register reads as 0");
	tap_equal(rdmsr(GLOBAL_STATUS), 0x20, "it clears what is given");
	wrmsr(STATUS_CLR, 0x20);
	tap_equal(rdmsr(GLOBAL_STATUS), 0, "the status can be cleared");
	tap_equal(wrmsr(GLOBAL_CTL, ~0ULL), 0x3f, "the global control drops undefined bits");
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

/* Break: msr::execute() leaves MSRs of another version to QEMU. */
static void no_global_registers(void)
{
	for (uint32_t msr = GLOBAL_STATUS; msr <= STATUS_SET; msr++) {
		tap_equal(rdmsr(msr), FAULT, "there is no global register to read");
		tap_equal(wrmsr(msr, 0), FAULT, "nor to write");
	}
}

int main(int argc, char **argv)
{
	const char *pmu = argc > 1 ? argv[1] : "on";
	bool core = strcmp(pmu, "off"), v2 = !strcmp(pmu, "on");

	msrs = open("/dev/cpu/0/msr", O_RDWR);
	if (msrs < 0)
		err(1, "/dev/cpu/0/msr");
	printf("TAP version 13\n");
	cpuid(core, v2);
	if (core) {
		reserved_bits(v2);
		legacy_names();
	}
	if (core && !v2)
		no_global_registers();
	return tap_done();
}
