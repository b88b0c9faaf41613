# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# The files of Linux that the series changes, as the source package has them. For users of commits.sh.

# stock VERSION DIRECTORY: fills DIRECTORY with them and the Makefile. `kernel.sh source` must have run.
stock() {
	# shellcheck disable=SC2034
	series=$TOP/patches/$1
	linux=$(cat "$TOP/build/linux-source-$1" 2>/dev/null) ||
		die "Linux $1 is not unpacked: the archive may no longer have it"
	linux=${MVPMU_CACHE:-${HOME:-}/.cache/mvpmu}${linux#/cache}
	{
		echo Makefile
		files_in_series
	} | while read -r name; do
		# What stage.sh has changed is kept there; what it has added is not of Linux.
		from=$linux/.mvpmu/stock/$name
		if [ ! -f "$from" ]; then
			! grep -qxF "$name" "$linux/.mvpmu/touched" || continue
			from=$linux/$name
			[ -f "$from" ] || continue
		fi
		mkdir -p "$2/$(dirname "$name")"
		cp -p "$from" "$2/$name"
	done
}
