// SPDX-License-Identifier: GPL-2.0
/* TAP on the serial port. */
#include "cpu.h"

#define SERIAL 0x3f8

static int tests, failures;

static void text(const char *s)
{
	for (; *s; s++)
		outb(SERIAL, *s);
}

static void number(uint64_t value, int base)
{
	if (value >= (uint64_t)base)
		number(value / base, base);
	outb(SERIAL, "0123456789abcdef"[value % base]);
}

void report(uint64_t value, uint64_t expected, const char *name)
{
	if (value != expected) {
		text("# 0x");
		number(value, 16);
		text(", expected 0x");
		number(expected, 16);
		text("\n");
		failures++;
	}
	text(value == expected ? "ok " : "not ok ");
	number(++tests, 10);
	text(" ");
	text(name);
	text("\n");
}

int report_done(void)
{
	text("1..");
	number(tests, 10);
	text("\n");
	return failures;
}
