# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Tests of perf's branch stacks, of the programs `counted` and `lbr_test`, to be called by test_that.

stack_depth() {
	cat /sys/devices/cpu/caps/branches
}

# has_a_stack DEPTH
has_a_stack() {
	[ "$(stack_depth)" = "$1" ]
}

# Of 500004 branches of each round of `counted`, see counted.S, all but a few are those of its loop, and the
# period does not end at others. The branches of a sample are in one line; a P is for "predicted". When an
# interrupt or another task came shortly before, they are less than there could be.
records_branches() {
	perf record -b -o data -c 100000 -e branches:u counted || return
	perf script -i data -F brstacksym >stacks || return
	tail -n 1 stacks
	awk -v depth="$(stack_depth)" '
		/^( *loop\+0x3\/loop\+0x0\/P[^ ]*)* *$/ && NF <= depth { loops++; full += NF == depth }
		END { print NR, loops + 0, full + 0; exit NR != 80 || loops != NR || !full }' stacks
}

# The same in the report, by where branches led.
reports_branches() {
	perf report -b -i data --stdio --sort symbol_from,symbol_to >shown || return
	grep -v '^#' shown
	grep -q '100.00%.* loop *.* loop' shown
}

# Each of them leads to the kernel.
records_branches_of_the_kernel() {
	perf record -j any,k -o data -c 20011 -e instructions:k counted || return
	perf script -i data -F brstack >stacks || return
	tail -n 1 stacks
	tr -s ' ' '\n' <stacks | awk -F/ '
		NF > 1 { n++; kernel += $2 ~ /^0xffffffff/ }
		END { print n, kernel + 0; exit n < 100 || kernel != n }'
}

# Chains of a sample are in lines of addresses and functions, with an empty one behind.
has_call_chains() {
	perf record --call-graph lbr -o data -c 20011 -e instructions:u /selftests/machine/lbr_test calls || return
	perf script -i data -F ip,sym >chains || return
	head -n 8 chains
	awk -v RS= '
		$2 == "leaf" { leaves++; right += $4 == "middle" && $6 == "outer" && $8 == "calls" }
		END { print NR, leaves + 0, right + 0; exit leaves < 100 || right != leaves }' chains
}

test_branches() {
	test_that 'perf record -b has branches of the loop in each sample' records_branches
	test_that 'perf report shows them' reports_branches
	test_that 'perf record -j any,k has branches of the kernel only' records_branches_of_the_kernel
	# AMD's has no such mode.
	[ "$(stack_depth)" = 16 ] ||
		test_that 'perf record --call-graph lbr has the callers' has_call_chains
}
