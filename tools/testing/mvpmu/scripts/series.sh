#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# series.sh VERSION...: whether the series applies to each version of Linux, as TAP in
# build/series/VERSION.tap. The source tree of the last one stays the one of build/linux-source.
set -eu
# shellcheck source=tools/testing/mvpmu/scripts/lib.sh
. "$(dirname -- "$0")/lib.sh"

rm -rf "$BUILD/series"
mkdir -p "$BUILD/series"
for version; do
	rm -f "$BUILD/linux-version"
	KERNEL=$version "$SCRIPTS/kernel.sh" source || :
	name="the series applies to Linux $version"
	case $(cat "$BUILD/linux-version" 2>/dev/null) in
	"$version") result="ok 1 $name" ;;
	'') result="not ok 1 $name" ;;
	*) result="ok 1 $name # SKIP the archive no longer has linux-source-$version" ;;
	esac
	{
		echo '1..1'
		[ "${result%% 1 *}" = ok ] || sed 's/^/# /' "$LOGS/patches-and-overlay.log"
		echo "$result"
	} >"$BUILD/series/$version.tap"
done
