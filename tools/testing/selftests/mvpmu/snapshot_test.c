// SPDX-License-Identifier: GPL-2.0
/*
 * A BPF program takes snapshots of the last branches, for which the PMU is stopped
 * and started again, while a guest that counts is in hardware: at each VM exit. The
 * guest's counts stay exact, and nothing counts for it in the host.
 *
 * Seen to fail, by the oracle of the test machine, when the snapshot starts a PMU
 * that it did not stop.
 */
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"
#include "payload.h"

#define NR_EXITS	200
#define NR_BRANCHES	4

static const struct payload payload = PAYLOAD_CPUID;

static void guest_count(void)
{
	u64 enable;

	pmu_reset();
	enable = pmc_program_all(INSTRUCTIONS, NULL);
	payload.measure(enable, NR_EXITS);
	pmc_check_all(enable, NULL, payload_count(&payload, INSTRUCTIONS, NR_EXITS));
	GUEST_DONE();
}

/* What the program leaves. */
struct seen {
	u64 runs;
	s64 length;	/* of the last snapshot in bytes, or an error */
};

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int create_map(void)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.key_size = sizeof(u32),
		.value_size = sizeof(struct seen),
		.max_entries = 1,
	};

	return bpf(BPF_MAP_CREATE, &attr);
}

static struct seen look_up(int map)
{
	struct seen seen;
	u32 key = 0;
	union bpf_attr attr = {
		.map_fd = map,
		.key = (u64)&key,
		.value = (u64)&seen,
	};
	int error = bpf(BPF_MAP_LOOKUP_ELEM, &attr);

	TEST_ASSERT(!error, __KVM_SYSCALL_ERROR("bpf", error));
	return seen;
}

#define SNAPSHOT_BYTES	(NR_BRANCHES * (int)sizeof(struct perf_branch_entry))

#define INSN(_code, _dst, _src, _off, _imm) \
	{ .code = _code, .dst_reg = _dst, .src_reg = _src, .off = _off, .imm = _imm }

/* Takes a snapshot to the stack. */
static int load_program(int map)
{
	const struct bpf_insn insns[] = {
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, 1, 10, 0, 0),
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, 1, 0, 0, -SNAPSHOT_BYTES),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 2, 0, 0, SNAPSHOT_BYTES),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 3, 0, 0, 0),
		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_get_branch_snapshot),
		INSN(BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_VALUE, 0, map),
		INSN(0, 0, 0, 0, 0),
		INSN(BPF_STX | BPF_MEM | BPF_DW, 1, 0, offsetof(struct seen, length), 0),
		INSN(BPF_LDX | BPF_MEM | BPF_DW, 2, 1, offsetof(struct seen, runs), 0),
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, 1),
		INSN(BPF_STX | BPF_MEM | BPF_DW, 1, 2, offsetof(struct seen, runs), 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_RAW_TRACEPOINT,
		.insns = (u64)insns,
		.insn_cnt = ARRAY_SIZE(insns),
		.license = (u64)"GPL",
	};

	return bpf(BPF_PROG_LOAD, &attr);
}

static int attach(int program, const char *tracepoint)
{
	union bpf_attr attr = {
		.raw_tracepoint.name = (u64)tracepoint,
		.raw_tracepoint.prog_fd = program,
	};

	return bpf(BPF_RAW_TRACEPOINT_OPEN, &attr);
}

TEST(snapshots_leave_a_guest_alone)
{
	const char *missing = pmu_missing();
	int map, program, link;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	struct seen seen;

	if (missing)
		SKIP(return, "%s", missing);
	map = create_map();
	TEST_ASSERT(map >= 0, __KVM_SYSCALL_ERROR("bpf", map));
	program = load_program(map);
	TEST_ASSERT(program >= 0, __KVM_SYSCALL_ERROR("bpf", program));

	vm = pmu_vm_create(&vcpu, guest_count);
	link = attach(program, "kvm_exit");
	TEST_ASSERT(link >= 0, __KVM_SYSCALL_ERROR("bpf", link));
	EXPECT_FALSE(run_guest(vcpu, NULL));
	close(link);

	seen = look_up(map);
	EXPECT_LE(NR_EXITS, seen.runs);
	EXPECT_EQ(SNAPSHOT_BYTES, seen.length);
	kvm_vm_free(vm);
	close(program);
	close(map);
}

TEST_HARNESS_MAIN
