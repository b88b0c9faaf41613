// SPDX-License-Identifier: GPL-2.0
/*
 * load-module FILE [PARAMETER=VALUE...]: insmod, with one system call. Busybox's tries a second way
 * when the first fails, so that what the kernel says is in the log twice.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * With mvpmu.report_modules on the kernel's command line: where the module's code is, for reports
 * of the machine, which knows addresses only.
 */
static void report(const char *file)
{
	static const char *const sections[] = { ".text", ".noinstr.text" };
	const char *base = strrchr(file, '/');
	char line[4096] = "";
	char name[64];
	FILE *from;

	from = fopen("/proc/cmdline", "r");
	if (!from || !fgets(line, sizeof(line), from))
		line[0] = 0;
	if (from)
		fclose(from);
	if (!strstr(line, "mvpmu.report_modules"))
		return;
	snprintf(name, sizeof(name), "%s", base ? base + 1 : file);
	name[strcspn(name, ".")] = 0;
	for (char *c = name; *c; c++)
		if (*c == '-')
			*c = '_';
	for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
		char path[256];

		snprintf(path, sizeof(path), "/sys/module/%s/sections/%s", name, sections[i]);
		from = fopen(path, "r");
		if (!from)
			continue;
		if (fgets(line, sizeof(line), from))
			printf("module %s %s %s", base ? base + 1 : file, sections[i], line);
		fclose(from);
	}
}

int main(int argc, char **argv)
{
	char parameters[4096] = "";
	int fd;

	if (argc < 2) {
		fprintf(stderr, "usage: load-module FILE [PARAMETER=VALUE...]\n");
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		size_t length = strlen(parameters);

		if (length + strlen(argv[i]) + 2 > sizeof(parameters)) {
			fprintf(stderr, "load-module: the parameters are too long\n");
			return 2;
		}
		sprintf(parameters + length, "%s ", argv[i]);
	}
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || syscall(SYS_finit_module, fd, parameters, 0)) {
		fprintf(stderr, "load-module: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	report(argv[1]);
	return 0;
}
