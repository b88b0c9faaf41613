/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a trace of Intel PT says, as far as it takes no decoder: packets (SDM
 * volume 3, "Packet Definitions").
 */
#ifndef SELFTEST_MVPMU_PT_PACKETS_H
#define SELFTEST_MVPMU_PT_PACKETS_H

#include <stdbool.h>
#include <string.h>

#include "kvm_util.h"

struct pt_summary {
	u64 packets;
	u64 psb, ovf, enables, disables;
	/* Branches: taken and not. */
	u64 taken, not_taken;
	/* Packets with an IP, and with one of a kernel with 64 bits. */
	u64 ips, high_ips;
	/* PIP packets with the bit of VMX non-root operation; those of VMCS. */
	u64 non_root, vmcs;
};

/* The branches of a TNT packet, below its stop bit. */
static inline void pt_branches(struct pt_summary *sum, u64 bits)
{
	int n = 63 - __builtin_clzll(bits);

	while (n--) {
		if (bits & BIT_ULL(n))
			sum->taken++;
		else
			sum->not_taken++;
	}
}

/* The length of the packet of an IP, after its header. */
static inline int pt_ip_bytes(u8 header)
{
	static const int bytes[] = { 0, 2, 4, 6, 6, -1, 8, -1 };

	return bytes[header >> 5];
}

/* The address with fewer than 4 bytes is compressed: the last one's. */
static inline u64 pt_ip(const u8 *packet, u64 last)
{
	int bytes = pt_ip_bytes(packet[0]);
	u64 ip = 0;

	memcpy(&ip, packet + 1, bytes);
	switch (packet[0] >> 5) {
	case 1:
		return (last & ~GENMASK_ULL(15, 0)) | ip;
	case 2:
		return (last & ~GENMASK_ULL(31, 0)) | ip;
	case 3:
		return (u64)((int64_t)(ip << 16) >> 16);
	case 4:
		return (last & ~GENMASK_ULL(47, 0)) | ip;
	default:
		return ip;
	}
}

/* Packets that begin with 02: their length, or 0. */
static inline int pt_extended(struct pt_summary *sum, const u8 *packet)
{
	u64 payload = 0;

	switch (packet[1]) {
	case 0x82:	/* PSB */
		sum->psb++;
		return 16;
	case 0x23:	/* PSBEND */
	case 0x83:	/* TraceStop */
		return 2;
	case 0xf3:	/* OVF */
		sum->ovf++;
		return 2;
	case 0x03:	/* CBR */
		return 4;
	case 0x43:	/* PIP */
		sum->non_root += packet[2] & 1;
		return 8;
	case 0xc8:	/* VMCS */
		sum->vmcs++;
		return 7;
	case 0xa3:	/* long TNT */
		memcpy(&payload, packet + 2, 6);
		pt_branches(sum, payload);
		return 8;
	default:
		return 0;
	}
}

/* Adds up what is in @size bytes.  False if they are no packets. */
static inline bool pt_summarize(struct pt_summary *sum, const u8 *packet, u64 size)
{
	const u8 *end = packet + size;
	u64 last = 0;
	int len;

	while (packet < end) {
		u8 kind = packet[0] & 0x1f;

		if (!packet[0]) {			/* PAD */
			packet++;
			continue;
		}
		if (packet[0] == 0x02) {
			if (packet[1] == 0x82)
				last = 0;
			len = pt_extended(sum, packet);
			if (!len)
				return false;
		} else if (!(packet[0] & 1)) {		/* short TNT */
			pt_branches(sum, packet[0] >> 1);
			len = 1;
		} else if (packet[0] == 0x19) {		/* TSC */
			len = 8;
		} else if (packet[0] == 0x99) {		/* MODE */
			len = 2;
		} else if (kind == 0x0d || kind == 0x11 || kind == 0x01 || kind == 0x1d) {
			len = 1 + pt_ip_bytes(packet[0]);
			if (len < 1)
				return false;
			if (len > 1) {
				last = pt_ip(packet, last);
				sum->ips++;
				sum->high_ips += last >> 63;
			}
			sum->enables += kind == 0x11;
			sum->disables += kind == 0x01;
		} else {
			return false;
		}
		sum->packets++;
		packet += len;
	}
	return packet == end;
}

#endif /* SELFTEST_MVPMU_PT_PACKETS_H */
