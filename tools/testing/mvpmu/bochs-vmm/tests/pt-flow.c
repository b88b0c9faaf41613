// SPDX-License-Identifier: GPL-2.0
/*
 * pt-flow TRACE (IMAGE ADDRESS)...: prints the address of each instruction that a trace of Intel PT
 * shows, in hexadecimal, as libipt decodes it, and between them lines that begin with # for PIP, VMCS, OVF and
 * TraceStop packets. The code lies in the files IMAGE, each mapped at ADDRESS.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <intel-pt.h>

static void fail(const char *what, int error, uint64_t at)
{
	fflush(stdout);
	fprintf(stderr, "pt-flow: %s: %s at offset %#" PRIx64 "\n", what,
		pt_errstr(pt_errcode(error)), at);
	exit(1);
}

static uint8_t *read_all(const char *name, size_t *size)
{
	FILE *file = fopen(name, "rb");
	uint8_t *bytes;

	if (!file || fseek(file, 0, SEEK_END)) {
		perror(name);
		exit(1);
	}
	*size = ftell(file);
	rewind(file);
	bytes = malloc(*size + 1);
	if (!bytes || fread(bytes, 1, *size, file) != *size) {
		perror(name);
		exit(1);
	}
	fclose(file);
	return bytes;
}

static uint64_t offset(const struct pt_insn_decoder *decoder)
{
	uint64_t at = 0;

	pt_insn_get_offset(decoder, &at);
	return at;
}

static void show(const struct pt_event *event)
{
	switch (event->type) {
	case ptev_paging:
		printf("# paging %" PRIx64 " %d\n", event->variant.paging.cr3,
		       event->variant.paging.non_root);
		break;
	case ptev_async_paging:
		printf("# paging %" PRIx64 " %d\n", event->variant.async_paging.cr3,
		       event->variant.async_paging.non_root);
		break;
	case ptev_vmcs:
		printf("# vmcs %" PRIx64 "\n", event->variant.vmcs.base);
		break;
	case ptev_async_vmcs:
		printf("# vmcs %" PRIx64 "\n", event->variant.async_vmcs.base);
		break;
	case ptev_overflow:
		printf("# overflow\n");
		break;
	case ptev_stop:
		printf("# stop\n");
		break;
	default:
		break;
	}
}

/* Takes events that come before the next instruction; the status after them. */
static int events(struct pt_insn_decoder *decoder, int status)
{
	struct pt_event event;

	while (status >= 0 && status & pts_event_pending) {
		status = pt_insn_event(decoder, &event, sizeof(event));
		if (status < 0)
			fail("event", status, offset(decoder));
		/* What PSB repeats is no event. */
		if (!event.status_update)
			show(&event);
	}
	return status;
}

int main(int argc, char **argv)
{
	struct pt_insn_decoder *decoder;
	struct pt_config config;
	struct pt_image *image;
	struct pt_insn insn;
	size_t size;
	int status, n;

	if (argc < 4 || argc % 2) {
		fprintf(stderr, "pt-flow: pt-flow TRACE (IMAGE ADDRESS)...\n");
		return 2;
	}
	pt_config_init(&config);
	config.begin = read_all(argv[1], &size);
	config.end = config.begin + size;
	decoder = pt_insn_alloc_decoder(&config);
	if (!decoder)
		fail("decoder", -pte_nomem, 0);
	image = pt_insn_get_image(decoder);
	for (n = 2; n < argc; n += 2) {
		free(read_all(argv[n], &size));
		status = pt_image_add_file(image, argv[n], 0, size, NULL,
					   strtoull(argv[n + 1], NULL, 0));
		if (status < 0)
			fail(argv[n], status, 0);
	}
	status = pt_insn_sync_forward(decoder);
	if (status < 0)
		fail("no PSB", status, offset(decoder));
	for (;;) {
		status = events(decoder, status);
		if (status < 0 || status & pts_eos)
			break;
		status = pt_insn_next(decoder, &insn, sizeof(insn));
		/* An instruction is there also when what follows it cannot be told. */
		if (insn.iclass != ptic_error && (status >= 0 || status == -pte_eos))
			printf("%" PRIx64 "\n", insn.ip);
		if (status < 0)
			break;
	}
	if (status < 0 && status != -pte_eos)
		fail("instruction", status, offset(decoder));
	return 0;
}
