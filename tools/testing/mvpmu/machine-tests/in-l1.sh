#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# in-l1.sh [on|old|off]: runs the tests of the machine in L1; the argument is its PMU.
# Their results go to /out/*.tap as well.
here=$(dirname "$0")
pmu=${1:-on}
status=0

# perf shall neither use a counter itself nor slow sampling down when interrupts take long.
echo 0 >/proc/sys/kernel/nmi_watchdog
echo 0 >/proc/sys/kernel/perf_cpu_time_max_percent
mkdir -p /out

run() {
	test=$1
	shift
	"$here/$test" "$@" >"/out/$test.tap" || status=1
	cat "/out/$test.tap"
}

run register_test "$pmu"
if [ "$pmu" = on ]; then
	run exact_test
	run sampling_test
fi
exit $status
