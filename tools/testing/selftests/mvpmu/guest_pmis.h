/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guest: some PMIs of counter 1, one after the other.
 */
#ifndef SELFTEST_MVPMU_GUEST_PMIS_H
#define SELFTEST_MVPMU_GUEST_PMIS_H

#include "apic.h"
#include "payload.h"

#define NR_PMIS		5
#define PMI_PERIOD	1000

static unsigned int nr_pmis;

/* The handler of PMI_VECTOR, which the host has to install. */
static void guest_pmi(struct ex_regs *regs)
{
	nr_pmis++;
	wrmsr(vendor->global_status_clear, counter_bit(1));
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	x2apic_write_reg(APIC_EOI, 0);
}

static void take_pmis(void)
{
	unsigned int i;

	x2apic_enable();
	x2apic_write_reg(APIC_LVTPC, PMI_VECTOR);
	asm volatile("sti");

	pmu_reset();
	for (i = 0; i < NR_PMIS; i++) {
		pmc_program(1, BRANCHES, PMC_COUNT | PMC_PMI, overflow_in(PMI_PERIOD));
		measure_loop(counter_bit(1), PMI_PERIOD);
	}
	GUEST_ASSERT_EQ(nr_pmis, NR_PMIS);
}

#endif /* SELFTEST_MVPMU_GUEST_PMIS_H */
