/* SPDX-License-Identifier: GPL-2.0 */
/* Results in TAP, on standard output. */
#ifndef TAP_H
#define TAP_H

#include <stdbool.h>
#include <stdio.h>

static int tap_tests, tap_failures;

static inline void tap_result(bool ok, const char *name)
{
	printf("%sok %d %s\n", ok ? "" : "not ", ++tap_tests, name);
	tap_failures += !ok;
	fflush(stdout);
}

/* A number is what it has to be. */
static inline void tap_equal(unsigned long value, unsigned long expected, const char *name)
{
	if (value != expected)
		printf("# %lu (%#lx), expected %lu (%#lx)\n", value, value, expected, expected);
	tap_result(value == expected, name);
}

static inline int tap_done(void)
{
	printf("1..%d\n", tap_tests);
	return tap_failures > 0;
}

#endif
