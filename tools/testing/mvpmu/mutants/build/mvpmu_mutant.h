/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_MVPMU_MUTANT_H
#define _LINUX_MVPMU_MUTANT_H

#include <linux/types.h>

/* Whether this is the deliberate bug that mvpmu_mutant=NAME on the command line has selected. */
bool mvpmu_mutant(const char *name);

#endif /* _LINUX_MVPMU_MUTANT_H */
