// SPDX-License-Identifier: GPL-2.0
/*
 * Deliberate bugs of Linux, one at a time: each has to be caught.
 */
#include <linux/cache.h>
#include <linux/export.h>
#include <linux/init.h>
#include <linux/mvpmu_mutant.h>
#include <linux/string.h>

static char selected[32] __ro_after_init;

bool mvpmu_mutant(const char *name)
{
	return !strcmp(selected, name);
}
EXPORT_SYMBOL_GPL(mvpmu_mutant);

static int __init select_mutant(char *name)
{
	strscpy(selected, name);
	return 1;
}
__setup("mvpmu_mutant=", select_mutant);
