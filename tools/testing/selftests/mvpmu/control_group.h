/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Control groups: the process of a test is in one; threads of it may be in one of their
 * own below that, to be frozen.
 */
#ifndef SELFTEST_MVPMU_CONTROL_GROUP_H
#define SELFTEST_MVPMU_CONTROL_GROUP_H

#include <stdbool.h>
#include <sys/types.h>

struct control_group {
	char process[64];	/* directories */
	char threads[80];
};

/* Write @text to a file, which has to succeed. */
void write_to(const char *path, const char *text);

/* What it is for. */
enum control { TO_COUNT, TO_FREEZE };

/* False when the kernel has none. */
bool control_group_create(struct control_group *group, enum control what);
/* The calling process, and who it will fork, is in it from now on. */
void control_group_enter(struct control_group *group);
/* The process goes back to the root. */
void control_group_destroy(struct control_group *group);
void control_group_add_thread(struct control_group *group, pid_t tid);
/* Returns once all of the threads are frozen, or none is. */
void control_group_freeze(struct control_group *group, bool freeze);
/* A file descriptor for perf. */
int control_group_open(struct control_group *group);

#endif /* SELFTEST_MVPMU_CONTROL_GROUP_H */
