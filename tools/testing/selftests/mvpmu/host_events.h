/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Events of the host that count in guests, too, and what mvpmu's parameter
 * host_events makes of them.
 */
#ifndef SELFTEST_MVPMU_HOST_EVENTS_H
#define SELFTEST_MVPMU_HOST_EVENTS_H

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/perf_event.h>

#include "guest_pmu.h"

#define HOST_EVENTS	"/sys/module/mvpmu/parameters/host_events"
#define NOBODY		65534

static inline int open_of_thread(struct perf_event_attr *attr, pid_t thread)
{
	int fd;

	attr->type = PERF_TYPE_HARDWARE;
	attr->size = sizeof(*attr);
	attr->exclude_hv = 1;
	fd = syscall(SYS_perf_event_open, attr, thread, -1, -1, 0);
	return fd < 0 ? -errno : fd;
}

/* An event of this process in user mode, which counts in guests, too; or -errno. */
static inline int open_event(void)
{
	struct perf_event_attr attr = {
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.exclude_kernel = 1,
	};

	return open_of_thread(&attr, 0);
}

/* The same by a user who may do nothing; 0 or the errno. */
static inline int open_event_as_nobody(void)
{
	int status, fd;
	pid_t pid;

	pid = fork();
	TEST_ASSERT(pid >= 0, __KVM_SYSCALL_ERROR("fork", pid));
	if (!pid) {
		if (setresuid(NOBODY, NOBODY, NOBODY))
			_exit(255);
		fd = open_event();
		_exit(fd < 0 ? -fd : 0);
	}
	TEST_ASSERT(waitpid(pid, &status, 0) == pid && WIFEXITED(status),
		    "The child has to end");
	return WEXITSTATUS(status);
}

/* Whether the parameter of the module has this value; it is refuse with KVM's C code. */
static inline bool mode_is(const char *mode)
{
	char value[16] = "refuse\n";
	int fd = open(HOST_EVENTS, O_RDONLY);
	ssize_t n;

	if (fd >= 0) {
		n = read(fd, value, sizeof(value) - 1);
		TEST_ASSERT(n > 0, "Cannot read " HOST_EVENTS);
		value[n] = 0;
		close(fd);
	}
	value[strcspn(value, "\n")] = 0;
	return !strcmp(value, mode);
}

/* Whether debugfs says that the vCPU of this process's only VM waits. */
static inline bool waits(void)
{
	return mvpmu_count("waiting");
}

#endif /* SELFTEST_MVPMU_HOST_EVENTS_H */
