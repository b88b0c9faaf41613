/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints of mvpmu, see Documentation/virt/kvm/x86/mvpmu.rst.  Its Rust code
 * has the static branches; see rust/kernel/kvm/mediated_pmu/trace.rs.
 *
 * What names a VM is passed by reference: it is not to be read while an event is
 * off.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM mvpmu

#if !defined(_TRACE_MVPMU_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_MVPMU_H

#include <linux/kvm_host.h>
#include <linux/tracepoint.h>

#ifndef _TRACE_MVPMU_VALUES
#define _TRACE_MVPMU_VALUES

/* Why the state came back to memory. */
enum mvpmu_put_reason {
	MVPMU_PUT_EXIT,
	MVPMU_PUT_RELEASE,
};

enum mvpmu_release_reason {
	MVPMU_RELEASE_KVM,
	MVPMU_RELEASE_PREEMPTED,
	MVPMU_RELEASE_BLOCKED,
};

/* How a guest with counters gets on. */
enum mvpmu_state {
	MVPMU_STATE_DORMANT,
	MVPMU_STATE_ACTIVE,
	MVPMU_STATE_WAITING,
};

#endif /* _TRACE_MVPMU_VALUES */

TRACE_DEFINE_ENUM(MVPMU_PUT_EXIT);
TRACE_DEFINE_ENUM(MVPMU_PUT_RELEASE);
TRACE_DEFINE_ENUM(MVPMU_RELEASE_KVM);
TRACE_DEFINE_ENUM(MVPMU_RELEASE_PREEMPTED);
TRACE_DEFINE_ENUM(MVPMU_RELEASE_BLOCKED);
TRACE_DEFINE_ENUM(MVPMU_STATE_DORMANT);
TRACE_DEFINE_ENUM(MVPMU_STATE_ACTIVE);
TRACE_DEFINE_ENUM(MVPMU_STATE_WAITING);

/* A vCPU, as the directories of debugfs name it: <pid>-<vm>/vcpu<vcpu>. */
#define MVPMU_VCPU_ENTRY			\
		__field(pid_t,	pid)		\
		__field(u64,	vm)		\
		__field(u32,	vcpu)		\
		__field(u32,	cpu)

#define MVPMU_VCPU_ASSIGN						\
	do {								\
		__entry->pid = kvm_vcpu->kvm->userspace_pid;		\
		__entry->vm = *vm;					\
		__entry->vcpu = kvm_vcpu->vcpu_id;			\
		__entry->cpu = raw_smp_processor_id();			\
	} while (0)

#define MVPMU_VCPU_FORMAT	"vm=%d-%llu vcpu=%u cpu=%u"
#define MVPMU_VCPU_ARGS		\
	__entry->pid, __entry->vm, __entry->vcpu, __entry->cpu

/* The guest's PMU state went into hardware, with so many accesses to registers. */
TRACE_EVENT(mvpmu_load,
	TP_PROTO(const struct kvm_vcpu *kvm_vcpu, const u64 *vm, u32 reads, u32 writes),
	TP_ARGS(kvm_vcpu, vm, reads, writes),
	TP_STRUCT__entry(
		MVPMU_VCPU_ENTRY
		__field(u32,	reads)
		__field(u32,	writes)
	),
	TP_fast_assign(
		MVPMU_VCPU_ASSIGN;
		__entry->reads = reads;
		__entry->writes = writes;
	),
	TP_printk(MVPMU_VCPU_FORMAT " reads=%u writes=%u",
		  MVPMU_VCPU_ARGS, __entry->reads, __entry->writes)
);

/* It came back.  The accesses are those of the load and of the put. */
TRACE_EVENT(mvpmu_put,
	TP_PROTO(const struct kvm_vcpu *kvm_vcpu, const u64 *vm, u32 reason, u32 reads,
		 u32 writes),
	TP_ARGS(kvm_vcpu, vm, reason, reads, writes),
	TP_STRUCT__entry(
		MVPMU_VCPU_ENTRY
		__field(u32,	reason)
		__field(u32,	reads)
		__field(u32,	writes)
	),
	TP_fast_assign(
		MVPMU_VCPU_ASSIGN;
		__entry->reason = reason;
		__entry->reads = reads;
		__entry->writes = writes;
	),
	TP_printk(MVPMU_VCPU_FORMAT " reason=%s reads=%u writes=%u",
		  MVPMU_VCPU_ARGS,
		  __print_symbolic(__entry->reason,
				   { MVPMU_PUT_EXIT,	"exit" },
				   { MVPMU_PUT_RELEASE,	"release" }),
		  __entry->reads, __entry->writes)
);

DECLARE_EVENT_CLASS(mvpmu_vcpu,
	TP_PROTO(const struct kvm_vcpu *kvm_vcpu, const u64 *vm),
	TP_ARGS(kvm_vcpu, vm),
	TP_STRUCT__entry(
		MVPMU_VCPU_ENTRY
	),
	TP_fast_assign(
		MVPMU_VCPU_ASSIGN;
	),
	TP_printk(MVPMU_VCPU_FORMAT, MVPMU_VCPU_ARGS)
);

/* A VM exit left it in hardware. */
DEFINE_EVENT(mvpmu_vcpu, mvpmu_park,
	TP_PROTO(const struct kvm_vcpu *kvm_vcpu, const u64 *vm),
	TP_ARGS(kvm_vcpu, vm)
);

/* A PMI of the guest arrived. */
DEFINE_EVENT(mvpmu_vcpu, mvpmu_pmi,
	TP_PROTO(const struct kvm_vcpu *kvm_vcpu, const u64 *vm),
	TP_ARGS(kvm_vcpu, vm)
);

/*
 * The vCPU leaves the CPU, preempted or as it waits for something, or returns to
 * userspace, or KVM needs the state in memory.
 */
TRACE_EVENT(mvpmu_release,
	TP_PROTO(const struct kvm_vcpu *kvm_vcpu, const u64 *vm),
	TP_ARGS(kvm_vcpu, vm),
	TP_STRUCT__entry(
		MVPMU_VCPU_ENTRY
		__field(u32,	reason)
	),
	TP_fast_assign(
		MVPMU_VCPU_ASSIGN;
		if (!kvm_vcpu->scheduled_out)
			__entry->reason = MVPMU_RELEASE_KVM;
		else if (READ_ONCE(kvm_vcpu->preempted))
			__entry->reason = MVPMU_RELEASE_PREEMPTED;
		else
			__entry->reason = MVPMU_RELEASE_BLOCKED;
	),
	TP_printk(MVPMU_VCPU_FORMAT " reason=%s", MVPMU_VCPU_ARGS,
		  __print_symbolic(__entry->reason,
				   { MVPMU_RELEASE_KVM,		"kvm" },
				   { MVPMU_RELEASE_PREEMPTED,	"preempted" },
				   { MVPMU_RELEASE_BLOCKED,	"blocked" }))
);

/* The guest began to use the hardware, or ended it, or has to wait for it. */
TRACE_EVENT(mvpmu_state,
	TP_PROTO(const struct kvm_vcpu *kvm_vcpu, const u64 *vm, u32 state, u64 counters),
	TP_ARGS(kvm_vcpu, vm, state, counters),
	TP_STRUCT__entry(
		MVPMU_VCPU_ENTRY
		__field(u32,	state)
		__field(u64,	counters)
	),
	TP_fast_assign(
		MVPMU_VCPU_ASSIGN;
		__entry->state = state;
		__entry->counters = counters;
	),
	TP_printk(MVPMU_VCPU_FORMAT " state=%s counters=0x%llx", MVPMU_VCPU_ARGS,
		  __print_symbolic(__entry->state,
				   { MVPMU_STATE_DORMANT,	"dormant" },
				   { MVPMU_STATE_ACTIVE,	"active" },
				   { MVPMU_STATE_WAITING,	"waiting" }),
		  __entry->counters)
);

/* The guest wants the hardware, but perf refused it. */
TRACE_EVENT(mvpmu_refuse,
	TP_PROTO(const struct kvm_vcpu *kvm_vcpu, const u64 *vm, int error),
	TP_ARGS(kvm_vcpu, vm, error),
	TP_STRUCT__entry(
		MVPMU_VCPU_ENTRY
		__field(int,	error)
	),
	TP_fast_assign(
		MVPMU_VCPU_ASSIGN;
		__entry->error = error;
	),
	TP_printk(MVPMU_VCPU_FORMAT " error=%d", MVPMU_VCPU_ARGS, __entry->error)
);

#endif /* _TRACE_MVPMU_H */

/* This part must be outside protection. */
#include <trace/define_trace.h>
