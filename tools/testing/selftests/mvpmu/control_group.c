// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control_group.h"
#include "test_util.h"

#define ROOT	"/tmp/control_groups"

void write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	TEST_ASSERT(fd >= 0, "Cannot open %s: %s", path, strerror(errno));
	TEST_ASSERT(write(fd, text, strlen(text)) == (ssize_t)strlen(text),
		    "Cannot write %s to %s: %s", text, path, strerror(errno));
	close(fd);
}

static void write_file(const char *directory, const char *name, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	write_to(path, text);
}

static void make_directory(const char *path)
{
	TEST_ASSERT(!mkdir(path, 0755) || errno == EEXIST, "Cannot make %s: %s", path,
		    strerror(errno));
}

bool control_group_create(struct control_group *group, enum control what)
{
	make_directory(ROOT);
	/* In version 2 perf's is there once another one is enabled: there is none. */
	if (what == TO_COUNT ? mount("none", ROOT, "cgroup", 0, "perf_event") :
			       mount("none", ROOT, "cgroup2", 0, NULL)) {
		TEST_ASSERT(errno == ENODEV, "Cannot mount: %s", strerror(errno));
		return false;
	}
	snprintf(group->process, sizeof(group->process), ROOT "/%d", getpid());
	snprintf(group->threads, sizeof(group->threads), "%s/threads", group->process);
	make_directory(group->process);
	return true;
}

void control_group_enter(struct control_group *group)
{
	write_file(group->process, "cgroup.procs", "0");
}

void control_group_destroy(struct control_group *group)
{
	write_file(ROOT, "cgroup.procs", "0");
	TEST_ASSERT(!rmdir(group->threads) || errno == ENOENT, "Cannot remove %s: %s",
		    group->threads, strerror(errno));
	TEST_ASSERT(!rmdir(group->process), "Cannot remove %s: %s", group->process,
		    strerror(errno));
	TEST_ASSERT(!umount(ROOT), "Cannot unmount: %s", strerror(errno));
}

void control_group_add_thread(struct control_group *group, pid_t tid)
{
	char text[16];

	make_directory(group->threads);
	write_file(group->threads, "cgroup.type", "threaded");
	snprintf(text, sizeof(text), "%d", tid);
	write_file(group->threads, "cgroup.threads", text);
}

static bool is_frozen(const struct control_group *group)
{
	char path[128], line[64];
	bool found = false;
	int frozen = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/cgroup.events", group->threads);
	file = fopen(path, "r");
	TEST_ASSERT(file, "Cannot open %s", path);
	while (!found && fgets(line, sizeof(line), file))
		found = sscanf(line, "frozen %d", &frozen) == 1;
	fclose(file);
	TEST_ASSERT(found, "%s does not say", path);
	return frozen;
}

void control_group_freeze(struct control_group *group, bool freeze)
{
	write_file(group->threads, "cgroup.freeze", freeze ? "1" : "0");
	while (is_frozen(group) != freeze)
		sched_yield();
}

int control_group_open(struct control_group *group)
{
	int fd = open(group->process, O_RDONLY | O_DIRECTORY);

	TEST_ASSERT(fd >= 0, "Cannot open %s", group->process);
	return fd;
}
