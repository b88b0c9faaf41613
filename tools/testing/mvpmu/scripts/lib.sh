# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# What the build scripts share: where things lie, and how a step reports.

SCRIPTS=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
TOP=$(CDPATH='' cd -- "$SCRIPTS/../../../.." && pwd)
BUILD=$TOP/build
LOGS=$BUILD/log
CACHE=${MVPMU_CACHE:-${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}/.cache/mvpmu}

die() {
	echo "mvpmu: $*" >&2
	exit 1
}

case $CACHE in
/*) ;;
*) die "MVPMU_CACHE must be an absolute path, not '$CACHE'" ;;
esac
mkdir -p "$CACHE" "$LOGS" || die "cannot write to $CACHE and $LOGS"
LC_ALL=C.UTF-8
export LC_ALL

# One builder at a time in a cache: two checkouts may share it.
cache_lock() {
	exec 9>"$CACHE/lock"
	if ! flock --nonblock 9; then
		echo "another build uses $CACHE: waiting for it"
		flock 9
	fi
}

ticker=
work=
cleanup() {
	[ -z "$ticker" ] || kill "$ticker" 2>/dev/null
	[ -z "$work" ] || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# tick NAME LOG: on a terminal shows the time and the last line of the log; else says every minute
# that the step goes on.
tick() {
	exec 9>&- # not our lock
	seconds=0
	while sleep 1; do
		seconds=$((seconds + 1))
		if [ -t 1 ]; then
			printf '\r\033[K%-28s %4d s  %s' "$1" $seconds \
				"$(tail -n 1 "$2" | tr -d '\r' | tr '\t' ' ' | cut -c1-60)"
		elif [ $((seconds % 60)) = 0 ]; then
			printf '%-28s %4d s ...\n' "$1" $seconds
		fi
	done
}

# step NAME COMMAND...: runs COMMAND with its output in a log, reports its time or where it failed.
step() {
	step_name=$1
	shift
	step_log=$LOGS/$(printf %s "$step_name" | tr -c 'A-Za-z0-9.\n' '-').log
	: >"$step_log"
	step_begin=$(date +%s)
	[ ! -t 1 ] || printf '%-28s' "$step_name"
	tick "$step_name" "$step_log" &
	ticker=$!
	# Not in a condition: the shell would switch `set -e` off inside the step.
	set +e
	(
		set -e
		"$@"
	) >"$step_log" 2>&1 9>&-
	step_rc=$?
	set -e
	kill "$ticker" 2>/dev/null
	wait "$ticker" 2>/dev/null || :
	ticker=
	[ ! -t 1 ] || printf '\r\033[K'
	if [ $step_rc != 0 ]; then
		tail -n 12 "$step_log" >&2
		die "$step_name failed; the log is ${step_log#"$TOP/"}"
	fi
	printf '%-28s %4d s\n' "$step_name" $(($(date +%s) - step_begin))
}

# have NAME WHAT: a step that has nothing to do.
have() {
	printf '%-28s cached (%s)\n' "$1" "$2"
}

# Sum over files, by name and content: sum_of DIR... (relative to the current directory).
sum_of() {
	find "$@" -type f ! -name '*.o' ! -name '.*' -print0 | LC_ALL=C sort -z |
		xargs -0 -r sha256sum | sha256sum | cut -c1-12
}
