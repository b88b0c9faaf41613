/* SPDX-License-Identifier: GPL-2.0 */
/*
 * KVM's test harness, with more time for a test: machines that are emulated, and kernels that watch
 * each access, take minutes for what takes seconds elsewhere.
 */
#ifndef SELFTEST_MVPMU_HARNESS_H
#define SELFTEST_MVPMU_HARNESS_H

#include "kvm_test_harness.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	250	/* seconds */

#endif /* SELFTEST_MVPMU_HARNESS_H */
