#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# mutants.sh SRC DEST: the sources of the module in SRC once more in DEST, with deliberate bugs for the
# tests of the tests, of which the parameter `mutant` selects one. Those that were thought of are
# diffs in tools/testing/mvpmu/mutants, one each; the others are made: each write of a register can be
# skipped. DEST/sites lists these: name, place, source.
set -eu
mutants=$(CDPATH='' cd -- "$(dirname -- "$0")/../mutants" && pwd)
src=$1
mkdir -p "$2"
dest=$(CDPATH='' cd -- "$2" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd "$src" && find . -type f ! -name '*.o' ! -name '*.ko' ! -name '*.mod*' ! -name '.*' \
	-exec cp --parents {} "$work/" \;)
cp "$mutants/build/mutant.rs" "$work/"
for diff in "$mutants"/build/*.diff "$mutants"/*.diff; do
	patch -p1 -s -f --fuzz=0 --no-backup-if-mismatch -d "$work" <"$diff" || {
		echo "mutants/${diff#"$mutants/"} no longer applies to the module: refresh it"
		exit 1
	}
done

# A function that is marked with track_caller stands for those that call it. What a diff has added
# says "mutant" at its end.
cd "$work"
modules=$(find . -name '*.rs' ! -name mutant.rs ! -name tests.rs -printf '%P\n' | sort)
# shellcheck disable=SC2086
writers=$(awk '/#\[track_caller\]/ { marked = 1 }
	marked && match($0, /fn [a-z_]+/) { print substr($0, RSTART + 3, RLENGTH - 3); marked = 0 }' \
	$modules | sort -u | tr '\n' ' ')
# shellcheck disable=SC2086
awk -v writers="$writers" '
	BEGIN {
		split(writers, names, " ")
		for (i in names)
			is_writer[names[i]] = 1
	}
	/^ *\/\// || /\/\/ mutant$/ { next }
	match($0, /fn [a-z_]+/) { within = substr($0, RSTART + 3, RLENGTH - 3); next }
	is_writer[within] { next }
	match($0, /(\.|::)[a-z_]+\(/) {
		rest = $0
		while (match(rest, /(\.|::)[a-z_]+\(/)) {
			name = substr(rest, RSTART, RLENGTH - 1)
			sub(/^[.:]+/, "", name)
			rest = substr(rest, RSTART + RLENGTH)
			if (!is_writer[name])
				continue
			n = ++count[FILENAME, within]
			text = $0
			gsub(/^ +/, "", text)
			printf "skip:%s:%s:%d\t%s:%d\t%s\n", FILENAME, within, n, FILENAME, FNR, text
		}
	}' $modules >sites
mkdir -p mutant
{
	echo '// SPDX-License-Identifier: GPL-2.0'
	echo 'pub(super) const NAMES: &[&str] = &['
	for diff in "$mutants"/*.diff; do
		echo "    \"$(basename "$diff" .diff)\","
	done
	echo '];'
	echo 'pub(super) const SITES: &[(&str, &str, u32)] = &['
	sed -E 's/^([^\t]*)\t([^:]*):([0-9]*)\t.*/    ("\1", "\2", \3),/' sites
	echo '];'
} >mutant/list.rs
rsync -rpc --delete --exclude='*.o' --exclude='*.ko' --exclude='*.mod*' --exclude='.*' \
	--exclude=Module.symvers --exclude=modules.order "$work/" "$dest/"
