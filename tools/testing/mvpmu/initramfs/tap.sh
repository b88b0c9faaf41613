# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Tests in shell: each is one command that succeeds. The results go to /out/NAME.tap.

# begin_testing NAME
begin_testing() {
	tap=${TAP_DIRECTORY:-/out}/$1.tap
	tests=0
	failures=0
	echo 'TAP version 13' >"$tap"
}

# test_that DESCRIPTION COMMAND...
test_that() {
	description=$1
	shift
	tests=$((tests + 1))
	if "$@" >/tmp/tap.output 2>&1; then
		echo "ok $tests $description" | tee -a "$tap"
	else
		failures=$((failures + 1))
		{
			sed 's/^/# /' /tmp/tap.output
			echo "not ok $tests $description"
		} | tee -a "$tap"
	fi
}

done_testing() {
	echo "1..$tests" >>"$tap"
	exit $((failures > 0))
}

# The assertions.

# fails_with TEXT COMMAND...: COMMAND fails, and TEXT is in what it says.
fails_with() {
	text=$1
	shift
	if output=$("$@" 2>&1); then
		echo "$* did not fail"
		return 1
	fi
	echo "$output"
	case $output in
	*"$text"*) ;;
	*)
		echo "no \"$text\" in it"
		return 1
		;;
	esac
}

# logs_once TEXT COMMAND...: the kernel's log gets one line with TEXT, whatever COMMAND returns.
logs_once() {
	text=$1
	shift
	dmesg -c >>/tmp/dmesg
	"$@"
	dmesg >/tmp/dmesg.new
	cat /tmp/dmesg.new
	[ "$(grep -cF "$text" /tmp/dmesg.new)" = 1 ]
}

# is FILE VALUE: FILE holds VALUE.
is() {
	echo "$1: $(cat "$1")"
	[ "$(cat "$1")" = "$2" ]
}

# has_mode MODE FILE
has_mode() {
	[ "$(stat -c %a "$2")" = "$1" ]
}

absent() {
	[ ! -e "$1" ]
}

not() {
	! "$@"
}
