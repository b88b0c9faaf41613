// SPDX-License-Identifier: GPL-2.0
/*
 * What a kernel does to a PMU: interrupts, local APIC modes, guests, INIT. Without an operating
 * system, so that every instruction is known.
 *
 * The comment above a test names a change to the machine that makes it fail.
 */
#include "cpu.h"

/* How far counter 0 moves; reading adds two instructions. */
#define counted(instructions) ({					\
	uint32_t from_, to_;						\
									\
	asm volatile("xor %%ecx, %%ecx; rdpmc; mov %%eax, %%r8d;"	\
		     instructions ";"					\
		     "xor %%ecx, %%ecx; rdpmc; mov %%r8d, %%ecx"	\
		     : "=a"(to_), "=c"(from_) : : "rdx", "r8", "cc");	\
	to_ - from_ - 3;						\
})

/* The same by the machine's own leaf, which counts whatever the PMU does. */
#define machine_counted(instructions) ({				\
	uint32_t from_, to_;						\
									\
	asm volatile("mov %2, %%eax; mov $5, %%ecx; cpuid; mov %%eax, %%r8d;" \
		     instructions ";"					\
		     "mov %2, %%eax; mov $5, %%ecx; cpuid; mov %%r8d, %%ecx" \
		     : "=&a"(to_), "=&c"(from_) : "i"(MACHINE_LEAF)	\
		     : "rbx", "rdx", "rsi", "rdi", "r8", "cc", "memory"); \
	to_ - from_ - 4;						\
})

static void stop(void)
{
	wrmsr(GLOBAL_CTL, 0);
	for (int n = 0; n < 6; n++) {
		wrmsr(PERF_CTL(n), 0);
		wrmsr(PERF_CTR(n), 0);
	}
	wrmsr(STATUS_CLR, ~0ULL);
}

static void count(int n, uint64_t bits)
{
	wrmsr(PERF_CTL(n), INSTRUCTIONS | bits);
}

/* Break: Amd::new() disables the counters in PerfCntrGlobalCtl. */
static void initial_state(void)
{
	uint64_t sum = 0;

	report(rdmsr(GLOBAL_CTL), 0x3f, "after RESET all counters are enabled globally");
	for (int n = 0; n < 6; n++)
		sum |= rdmsr(PERF_CTL(n)) | rdmsr(PERF_CTR(n));
	report(sum | rdmsr(GLOBAL_STATUS), 0, "after RESET all else is clear");
}

/* Break: msr::perform() counts a WRMSR after it was carried out. */
static void enabling(void)
{
	uint32_t read, high, msr = GLOBAL_CTL;

	stop();
	count(0, 0);
	wrmsr(GLOBAL_CTL, 1);
	report(counted(""), 0, "between two reads there is nothing");
	report(counted(".rept 100; nop; .endr"), 100, "100 instructions");
	wrmsr(GLOBAL_CTL, 0);
	wrmsr(PERF_CTR(0), 0);
	asm volatile("wrmsr; nop; nop; xor %%ecx, %%ecx; rdpmc"
		     : "=a"(read), "+c"(msr), "=d"(high) : "a"(1), "d"(0));
	report(read, 3, "counting starts after the WRMSR that enables");
	wrmsr(GLOBAL_CTL, 0);
	wrmsr(PERF_CTR(0), 0);
	asm volatile("wrmsr; nop; nop; xor %%eax, %%eax; wrmsr"
		     : : "a"(1), "c"(GLOBAL_CTL), "d"(0));
	report(rdpmc(0), 4, "the WRMSR that disables counts");
}

/* Break: Vcpu::fold() does not keep what it folds, or cpuid::execute() forgets what is ahead. */
static void instructions(void)
{
	report(machine_counted(""), 0, "the machine counts: nothing");
	report(machine_counted(".rept 100; nop; .endr"), 100, "the machine counts 100 instructions");
	report(machine_counted("mov $100, %%edi; 1: dec %%edi; jnz 1b"), 201, "and a loop");
	stop();
	count(0, 0);
	report(machine_counted("mov $0xc0000301, %%ecx; mov $1, %%eax; xor %%edx, %%edx; wrmsr;"
			       "xor %%ecx, %%ecx; rdpmc; nop; rdpmc"),
	       8, "and those that change the PMU or read it");
	stop();
	report(machine_counted("mov $memory + 0x7300, %%edi; mov $64, %%ecx; rep stosb"), 3,
	       "a string instruction is one");
}

/* Break: MISPREDICTED has no NotTaken, or SourceSet::contains() is wrong about Indirect. */
static void mispredicted(void)
{
	static const struct {
		uint64_t event, expected;
		const char *name;
	} events[] = {
		{ 0xc3, 2 + 2, "mispredicted branches" },
		{ 0xc5, 2, "those that were taken" },
		{ 0x1000000c7, 2, "those that were not" },
		{ 0xc9, 0, "returns are predicted" },
	};

	stop();
	for (int n = 0; n < 4; n++)
		wrmsr(PERF_CTL(n), events[n].event | OS | EN);
	asm volatile("wrmsr;"
		     "mov $100, %%r8d; 1: dec %%r8d; jnz 1b;"	/* the last one is not taken */
		     "test %%r8d, %%r8d; jnz 2f; jz 3f; 2: nop; 3:"	/* the first of two is not */
		     "lea 5f(%%rip), %%r8; jmp *%%r8; 5:"
		     "lea 7f(%%rip), %%r8; call *%%r8; call 7f; jmp 8f; 7: ret; 8:"
		     "mov $0xc0000301, %%ecx; xor %%eax, %%eax; xor %%edx, %%edx; wrmsr"
		     : : "a"(0xf), "c"(GLOBAL_CTL), "d"(0) : "r8", "cc", "memory");
	for (int n = 0; n < 4; n++)
		report(rdpmc(n), events[n].expected, events[n].name);
}

/* Break: sources() takes a call for a jump, or nobody calls branched_to(). */
static void branches(void)
{
	static const struct {
		uint64_t event, expected;
		const char *name;
	} events[] = {
		{ 0xc2, 102 + 3 + 2 + 2 + 1, "branches" },
		{ 0xd1, 100 + 2, "conditional branches" },
		{ 0xc4, 99 + 1 + 3 + 2 + 2 + 1, "taken branches" },
		{ 0xc8, 2, "near returns" },
		{ 0xcc, 2, "indirect branches" },
		{ 0xc6, 1, "far transfers" },
	};

	stop();
	for (int n = 0; n < 6; n++)
		wrmsr(PERF_CTL(n), events[n].event | OS | EN);
	asm volatile("wrmsr;"
		     "mov $100, %%r8d; 1: dec %%r8d; jnz 1b;"	/* 99 of 100 are taken */
		     "test %%r8d, %%r8d; jnz 2f; jz 3f; 2: nop; 3:"	/* one of two is */
		     "jmp 4f; 4: lea 5f(%%rip), %%r8; jmp *%%r8; 5:"
		     "lea 7f(%%rip), %%r8; call *%%r8; call 7f; jmp 8f; 7: ret; 8:"
		     "pushq $0x08; lea 9f(%%rip), %%r8; push %%r8; lretq; 9:"
		     "mov $0xc0000301, %%ecx; xor %%eax, %%eax; xor %%edx, %%edx; wrmsr"
		     : : "a"(0x3f), "c"(GLOBAL_CTL), "d"(0) : "r8", "cc", "memory");
	for (int n = 0; n < 6; n++)
		report(rdpmc(n), events[n].expected, events[n].name);
}

/* 2000 instructions before the wrap. */
static void arm(int n, uint64_t bits)
{
	wrmsr(PERF_CTR(n), -2000ULL);
	count(n, INT | bits);
}

static void overflow(void)
{
	stop();
	arm(0, 0);
	asm volatile("sti");
	wrmsr(GLOBAL_CTL, 1);
	run_loop(5000);
	wrmsr(GLOBAL_CTL, 0);
	asm volatile("cli");
}

static void rdpmc_16(void)
{
	asm volatile("rdpmc" : : "c"(16) : "eax", "edx");
}

/* Break: follow_steps() leaves one_insn_per_tb alone, or cycle_rule() takes CNT_MASK for nothing. */
static void cycles(void)
{
	static const struct {
		uint64_t selector, expected;
		const char *name;
	} events[] = {
		{ 0xc2 | 1 << 24, 10 + 2, "cycles with a branch" },
		{ 0xc2 | 1 << 24 | INV, 1 + 3 * 10 + 6 - 10 - 2, "cycles without one" },
		{ 0xc2 | EDGE, 10, "how often branches begin" },
		{ 0xc0 | 2 << 24, 0, "no cycle with two instructions" },
		{ 0xc0 | 2 << 24 | INV, 1 + 3 * 10 + 6, "each cycle has fewer" },
		{ 0xc0, 1 + 3 * 10 + 6, "instructions" },
	};

	stop();
	for (int n = 0; n < 6; n++)
		wrmsr(PERF_CTL(n), events[n].selector | OS | EN);
	asm volatile("wrmsr;"
		     "mov $10, %%r8d; 1: nop; dec %%r8d; jnz 1b; jmp 2f; 2: jmp 3f; 3:"
		     "mov $0xc0000301, %%ecx; xor %%eax, %%eax; xor %%edx, %%edx; wrmsr"
		     : : "a"(0x3f), "c"(GLOBAL_CTL), "d"(0) : "r8", "cc", "memory");
	for (int n = 0; n < 6; n++)
		report(rdpmc(n), events[n].expected, events[n].name);
}

/* Break: msr::execute() leaves DebugCtl to QEMU, or Amd::pmi() freezes nothing. */
static void freeze(void)
{
	uint64_t frozen, eax = 0x80000022, ebx, ecx = 0, edx;
	int before = interrupts[0x40];

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	report(eax & 7, 5, "CPUID: PerfMonV2, freezing, no LBR stack");
	wrmsr(MSR_DEBUGCTL, 3 << 11 | 1 << 20);
	report(rdmsr(MSR_DEBUGCTL), 3 << 11, "DebugCtl has the bits that freeze");
	overflow();
	frozen = rdpmc(0);
	run_loop(100);
	report(interrupts[0x40] - before, 1, "an overflow is an interrupt");
	report(rdmsr(GLOBAL_STATUS), 3ULL << 58 | 1, "which freezes counters and LBR stack");
	wrmsr(GLOBAL_CTL, 1);
	run_loop(100);
	report(rdpmc(0), frozen, "frozen counters stand still");
	wrmsr(STATUS_CLR, 3ULL << 58);
	run_loop(100);
	report(rdpmc(0) - frozen > 200, 1, "until that is cleared");
	wrmsr(MSR_DEBUGCTL, 0);
	report(rdmsr(MSR_DEBUGCTL), 0, "DebugCtl can be cleared");
	stop();
}

/* Break: Vcpu::interrupted_at() counts what VMRUN injects, or #GP; or discon.rs calls it never. */
static void interrupts_taken(void)
{
	int before = interrupts[0x40];

	stop();
	arm(0, 0);
	wrmsr(PERF_CTL(1), 0x2c | OS | EN);
	asm volatile("sti");
	wrmsr(GLOBAL_CTL, 3);
	run_loop(5000);
	asm volatile("cli");
	faults(rdpmc_16);
	asm volatile("int $0x42");
	wrmsr(GLOBAL_CTL, 0);
	report(interrupts[0x40] - before, 1, "an interrupt");
	report(rdpmc(1), 1, "is counted, a #GP and INT are not");
}

/* Break: LocalApic::performance_interrupt() ignores the mask bit, or the APIC's enable bit. */
static void xapic(void)
{
	apic_write(APIC_LVTPC, 0x40);
	overflow();
	report(interrupts[0x40], 1, "xAPIC: an overflow is an interrupt");
	report(apic_read(APIC_LVTPC), 0x40, "delivery leaves the LVTPC's mask bit alone");
	report(rdmsr(GLOBAL_STATUS), 1, "and sets the status bit");
	overflow();
	report(interrupts[0x40], 2, "the next one needs no unmasking");

	apic_write(APIC_LVTPC, LVT_MASKED | 0x40);
	overflow();
	report(interrupts[0x40], 2, "masked: no interrupt");
	report(rdmsr(GLOBAL_STATUS), 1, "but the status bit");
	apic_write(APIC_LVTPC, 0x40);
	asm volatile("sti; nop; cli");
	report(interrupts[0x40], 2, "unmasking does not bring it back");

	apic_write(APIC_LVTPC, LVT_NMI);
	overflow();
	report(interrupts[2], 1, "the LVTPC can ask for an NMI");

	apic_write(APIC_LVTPC, 0x40);
	apic_write(APIC_SVR, 0xff);
	overflow();
	apic_write(APIC_SVR, 0x1ff);
	asm volatile("sti; nop; cli");
	report(interrupts[0x40], 2, "a local APIC that is disabled delivers nothing, nor later");
	apic_write(APIC_LVTPC, 0x40);
}

/* Break: LocalApic::set_base() does nothing. */
static void x2apic(void)
{
	int before = interrupts[0x40];

	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_EXTD);
	overflow();
	report(interrupts[0x40] - before, 1, "x2APIC: the LVTPC of xAPIC mode stays");
	wrmsr(MSR_X2APIC + (APIC_LVTPC >> 4), 0x41);
	overflow();
	report(interrupts[0x41], 1, "x2APIC: the LVTPC is an MSR");
	wrmsr(MSR_X2APIC + (APIC_LVTPC >> 4), LVT_MASKED | 0x41);
	overflow();
	report(interrupts[0x41], 1, "x2APIC: masked");
	wrmsr(MSR_X2APIC + (APIC_LVTPC >> 4), 0x41);
	overflow();
	report(interrupts[0x41], 2, "x2APIC: unmasked");
}

static void rdpmc_0(void)
{
	asm volatile("rdpmc" : : "c"(0) : "eax", "edx");
}

static void rdmsr_lbr_select(void)
{
	asm volatile("rdmsr" : : "c"(0xc000010e) : "eax", "edx");
}

/* Break: Amd::rdpmc() accepts one index more, or is_pmu_msr() knows no last branch records. */
static void general_protection(void)
{
	report(faults(rdmsr_lbr_select), 1, "without last branch records, their MSRs are #GP");
	report(faults(rdpmc_16), 1, "RDPMC behind the last counter is #GP");
	report(faults(rdpmc_0), 0, "RDPMC of a counter is not");
	stop();
	count(0, 0);
	wrmsr(GLOBAL_CTL, 1);
	asm volatile("xor %%ecx, %%ecx; rdpmc; mov %%eax, %%r8d; mov $16, %%ecx; rdpmc;"
		     : : : "eax", "ecx", "edx", "r8");
	wrmsr(GLOBAL_CTL, 0);
	report(rdmsr(GLOBAL_STATUS), 0, "nothing else happens");
}

static void guest_1000(void)
{
	asm volatile(".rept 1000; nop; .endr; vmmcall");
}

static void guest_reads(void)
{
	asm volatile("rdpmc; vmmcall" : : "c"(0) : "eax", "edx");
}

static void guest_reads_16(void)
{
	asm volatile("rdpmc; vmmcall" : : "c"(16) : "eax", "edx");
}

static uint32_t guest_has_read;

static void guest_reads_fabric(void)
{
	asm volatile("rdpmc; mov %%eax, %0; vmmcall" : "=m"(guest_has_read) : "c"(6) : "eax", "edx");
}

/* Break: Uncore::register() takes the registers of the L3 for those of the data fabric. */
static void uncore(void)
{
	uint64_t before, eax = 0x80000022, ebx, ecx = 0, edx;

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	report(ebx >> 10 & 0x3f, 4, "CPUID tells of four counters of the data fabric");
	for (int n = 0; n < 4; n++)
		wrmsr(DF_CTR(n), 100 + n);
	for (int n = 0; n < 6; n++)
		wrmsr(L3_CTR(n), 104 + n);
	for (int n = 0; n < 10; n++)
		report(rdpmc(6 + n), 100 + n, "RDPMC reads a counter beside the core's");
	before = rdpmc(15);
	wrmsr(L3_CTL(5), EN);
	run("nop; nop; nop");
	wrmsr(L3_CTL(5), 0);
	report(rdpmc(15) - before > 3, 1, "it counts");
	report(rdpmc(14), 108, "and no other");
}

/* Break: Amd::rdpmc() knows the core's counters only. */
static void uncore_in_guest(void)
{
	stop();
	wrmsr(DF_CTR(0), 0x1234);
	report(guest_run(guest_reads_fabric), EXIT_VMMCALL, "a guest that RDPMC does not leave");
	report(guest_has_read, 0x1234, "reads what the host's data fabric has counted");
	guest_intercept_rdpmc(true);
	report(guest_run(guest_reads_fabric), EXIT_RDPMC, "one that it leaves does not");
	guest_intercept_rdpmc(false);
}

static void guest_reads_msr(void)
{
	asm volatile("rdmsr; vmmcall" : : "c"(PERF_CTR(0)) : "eax", "edx");
}

/* Break: Amd::classes() takes GuestOnly for HostOnly, or nobody calls set_svme(). */
static void guest_and_host(void)
{
	uint32_t counted;

	stop();
	count(0, HOST_ONLY);
	count(1, GUEST_ONLY);
	wrmsr(GLOBAL_CTL, 3);
	run_loop(100);
	report(rdpmc(0) | rdpmc(1), 0, "without SVM, HostOnly and GuestOnly stand still");
	asm volatile("rdmsr; or $0x1000, %%eax; wrmsr; nop; nop; xor %%ecx, %%ecx; rdpmc"
		     : "=a"(counted) : "c"(MSR_EFER) : "edx");
	report(counted, 3, "HostOnly counts from the WRMSR on that enables SVM");
	svm_init();

	stop();
	count(0, 0);
	count(1, GUEST_ONLY);
	count(2, HOST_ONLY);
	count(3, GUEST_ONLY | HOST_ONLY);
	wrmsr(PERF_CTL(4), 0xc0 | USR | EN | GUEST_ONLY);
	wrmsr(GLOBAL_CTL, 0x3f);
	run_loop(100);
	report(guest_run(guest_1000), EXIT_VMMCALL, "a guest runs");
	wrmsr(GLOBAL_CTL, 0);
	report(rdpmc(1), 1000, "GuestOnly counts the guest's instructions, not the one that exits");
	report(rdpmc(2) > 200, 1, "HostOnly counts");
	report(rdpmc(0) - rdpmc(2), 1000, "all others");
	report(rdpmc(3), rdpmc(0), "both together count all");
	report(rdpmc(4), 0, "the guest ran no user code");
}

/* Break: Guest::intercepts_rdpmc() or intercepts_msr() says no. */
static void intercepts(void)
{
	int before = interrupts[13];
	uint64_t value;

	stop();
	wrmsr(PERF_CTR(0), 0x1234);
	report(guest_run(guest_reads), EXIT_VMMCALL, "RDPMC in a guest");
	guest_intercept_rdpmc(true);
	report(guest_run(guest_reads), EXIT_RDPMC, "RDPMC exits when it is intercepted");
	guest_intercept_rdpmc(false);

	guest_intercept_msr(PERF_CTR(0), true);
	report(guest_run(guest_reads_msr), EXIT_MSR, "RDMSR exits when it is intercepted");
	guest_intercept_msr(PERF_CTR(0), false);
	report(guest_run(guest_reads_msr), EXIT_VMMCALL, "and not otherwise");

	guest_intercept_gp(true);
	report(guest_run(guest_reads_16), EXIT_GP, "#GP of RDPMC exits when it is intercepted");
	value = guest_rip();
	report(guest_resume(2), EXIT_VMMCALL, "at the RDPMC");
	report(guest_rip() - value, 2, "and the guest goes on behind it");
	guest_intercept_gp(false);
	report(interrupts[13], before, "no handler saw it");
	guest_run(guest_reads_16);
	report(interrupts[13], before + 1, "a #GP that is not intercepted is the guest's own");
}

static void guest_loop(void)
{
	asm volatile("sti");
	run_loop(5000);
	asm volatile("vmmcall");
}

/* Break: EXITS_BETWEEN is empty, or follows_vmrun() is never true. */
static void interrupt_in_guest(void)
{
	int before = interrupts[0x41];
	uint64_t exits = 0, next = 0, code;

	stop();
	arm(1, GUEST_ONLY);
	count(2, GUEST_ONLY);
	wrmsr(GLOBAL_CTL, 0x3f);
	for (code = guest_run(guest_loop); code == EXIT_INTR; code = guest_resume(0)) {
		next |= guest_next_rip();
		asm volatile("sti; nop; cli");
		exits++;
	}
	wrmsr(GLOBAL_CTL, 0);
	report(code, EXIT_VMMCALL, "the guest comes to its end");
	report(exits, 1, "an overflow in the guest exits once");
	report(next, 0, "nRIP is 0, as no instruction has exited");
	report(interrupts[0x41] - before, 1, "its interrupt is the host's");
	report(rdpmc(2), 10002, "nothing of the guest is lost or counted twice");
}

static void guest_nops(void)
{
	asm volatile("sti; nop; nop; vmmcall");
}

/* Break: Vcpu::interrupted_at() takes the class of the last block for that of the guest. */
static void injected(void)
{
	int before = interrupts[0x42];
	uint64_t code;

	stop();
	wrmsr(PERF_CTL(0), 0x2c | OS | EN);
	wrmsr(GLOBAL_CTL, 1);
	guest_inject(0x42);
	code = guest_run(guest_nops);
	wrmsr(GLOBAL_CTL, 0);
	guest_inject(0);
	report(code, EXIT_VMMCALL, "an interrupt is injected");
	report(interrupts[0x42] - before, 1, "and handled");
	report(rdpmc(0), 0, "but none was taken");
}

/* The other CPU: see start.S. It needs things below 1 MiB. */
extern char memory[];
#define AP_BASE		0x8000
#define AP_VECTOR	0x50
struct ap_msr {
	uint32_t msr, low, high;
} __attribute__((packed));
struct ap_list {
	uint32_t count;
	struct ap_msr msrs[8];
} __attribute__((packed));
static volatile struct {
	uint16_t writes, reads;
	uint32_t done, interrupts;
} *const ap = (void *)(memory + 0x7000);
static struct ap_list *const ap_writes = (void *)(memory + 0x7100),
	*const ap_reads = (void *)(memory + 0x7200);
extern char ap_start[], ap_end[], ap_interrupt[];

static void ap_write(uint32_t msr, uint64_t value)
{
	ap_writes->msrs[ap_writes->count++] = (struct ap_msr){ msr, value, value >> 32 };
}

static uint64_t ap_run(uint32_t msr)
{
	uint32_t done = ap->done;

	ap_reads->count = 1;
	ap_reads->msrs[0].msr = msr;
	ap->writes = 0x7100;
	ap->reads = 0x7200;
	/* INIT, then a start-up IPI; x2APIC mode, APIC ID 1. */
	wrmsr(MSR_X2APIC + (APIC_ICR >> 4), 1ULL << 32 | 0xc500);
	wrmsr(MSR_X2APIC + (APIC_ICR >> 4), 1ULL << 32 | 0x4600 | AP_BASE >> 12);
	while (ap->done == done)
		asm volatile("pause");
	ap_writes->count = 0;
	return ap_reads->msrs[0].low | (uint64_t)ap_reads->msrs[0].high << 32;
}

/* Break: Amd::reset() clears everything on INIT, or reset::may_start_at() knows the reset vector only. */
static void other_cpu(void)
{
	int before = interrupts[0x41];

	for (int i = 0; i < ap_end - ap_start; i++)
		((volatile char *)memory)[AP_BASE + i] = ap_start[i];
	((volatile uint16_t *)memory)[2 * AP_VECTOR] = AP_BASE + (ap_interrupt - ap_start);
	((volatile uint16_t *)memory)[2 * AP_VECTOR + 1] = 0;
	stop();
	arm(0, 0);

	ap_write(MSR_APIC_BASE, 0xfee00c00);
	ap_write(MSR_X2APIC + (APIC_SVR >> 4), 0x1ff);
	ap_write(MSR_X2APIC + (APIC_LVTPC >> 4), AP_VECTOR);
	ap_write(PERF_CTR(0), (1ULL << 48) - 500);
	ap_write(PERF_CTL(0), INSTRUCTIONS | INT);
	ap_run(PERF_CTL(0));
	report(ap->interrupts, 1, "the other CPU's overflow is its interrupt");
	report(interrupts[0x41], before, "and not this one's");

	ap_write(PERF_CTL(0), 0);
	ap_write(PERF_CTL(1), 0xc1 | HOST_ONLY);
	ap_run(PERF_CTL(1));
	report(ap_run(PERF_CTL(1)), 0xc1 | HOST_ONLY, "INIT leaves the PMU alone");

	ap_write(MSR_EFER, EFER_SVME);
	ap_write(PERF_CTR(1), 0);
	ap_write(PERF_CTL(1), INSTRUCTIONS | HOST_ONLY);
	ap_run(PERF_CTR(1));
	ap_write(PERF_CTR(1), 7);
	report(ap_run(PERF_CTR(1)), 7, "INIT disables SVM: HostOnly stands still");

	ap->interrupts = 0;
	ap_write(MSR_X2APIC + (APIC_SVR >> 4), 0x1ff);
	ap_write(PERF_CTR(0), (1ULL << 48) - 500);
	ap_write(PERF_CTL(0), INSTRUCTIONS | INT);
	ap_run(PERF_CTL(0));
	report(ap->interrupts, 0, "INIT masks the LVTPC");
}

extern char swept[], swept_end[], sweep_1[], sweep_2[], sweep_3[], sweep_4[], sweep_5[];
asm("swept: nop; sweep_1: call 2f; sweep_2: dec %ecx; sweep_3: jnz swept; sweep_4: ret;"
    "swept_end: 2: cli; sweep_5: ret");

static void swept_run(void)
{
	asm volatile("mov $2, %%ecx; call swept" : : : "ecx", "cc", "memory");
}

/* How many NMIs come in order, each before an instruction where one is expected, and no more. */
static int swept_in_order(uint64_t every, char *const *expected, int n)
{
	uint64_t at;
	int i = 0;

	for (;; i++) {
		int before = interrupts[2];

		sweep(SWEEP_BEGIN, every, SWEEP_NMI, &at);
		swept_run();
		if (!sweep(SWEEP_END, 0, 0, &at))
			return interrupts[2] == before ? i : -1;
		if (i == n || interrupts[2] != before + 1 || last_nmi != at || at != (uint64_t)expected[i])
			return -1;
	}
}

/*
 * Break: Vcpu::sweep_step() goes on with a block that has more instructions, or
 * translations are not made anew.
 */
static void swept_exactly(void)
{
	char *const once[] = { swept, sweep_1, swept_end, sweep_5, sweep_2, sweep_3, sweep_4 };
	char *const twice[] = { swept, sweep_1, swept_end, sweep_5, sweep_2, sweep_3,
				swept, sweep_1, swept_end, sweep_5, sweep_2, sweep_3, sweep_4 };
	char *const third[] = { swept_end, sweep_3 };
	uint64_t none;

	swept_run();
	sweep(SWEEP_PLACE, (uint64_t)swept, (uint64_t)swept_end, &none);
	report(swept_in_order(1ULL << 32 | 1, once, 7), 7, "an NMI comes before each instruction");
	report(swept_in_order(2ULL << 32 | 1, twice, 13), 13, "each time that it is executed");
	report(swept_in_order(1ULL << 32 | 3, third, 2), 2, "or before every third");
	report(swept_in_order(0, once, 0), 0, "or before none");
}

int main(void)
{
	interrupts_init();
	initial_state();
	enabling();
	instructions();
	branches();
	mispredicted();
	xapic();
	cycles();
	freeze();
	interrupts_taken();
	x2apic();
	general_protection();
	uncore();
	guest_and_host();
	intercepts();
	uncore_in_guest();
	interrupt_in_guest();
	injected();
	next_rip();
	other_cpu();
	swept_exactly();
	outl(0xf4, report_done() != 0);
	return 0;
}
