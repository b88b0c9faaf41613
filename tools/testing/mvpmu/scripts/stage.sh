#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# stage.sh SRC SERIES [mutants]: brings the Linux tree SRC to "stock + SERIES (patches/<version>) + overlay",
# and with the word to that with the deliberate bugs in tools/testing/mvpmu/mutants/linux, of which
# mvpmu_mutant=NAME on the kernel's command line selects one. Inside the root file system.
#
# What the result should be is put together beside the tree, from the stock copies of the files
# that change; then only what differs is copied. So make rebuilds what changed and nothing else,
# and a patch or an overlay file that goes away leaves no trace.
set -eu
src=$1
series=/mvpmu/patches/$2
with=${3:-}
state=$src/.mvpmu
# shellcheck source=tools/testing/mvpmu/scripts/overlay.sh
. /mvpmu/tools/testing/mvpmu/scripts/overlay.sh

rm -rf "$state/want"
mkdir -p "$state/want" "$state/stock"
cd "$state"
: >>touched

# stock FILE: the file as the source package has it, or nothing.
stock() {
	if [ -f "stock/$1" ]; then
		cat "stock/$1"
	elif [ -f "$src/$1" ] && ! grep -qxF "$1" touched; then
		mkdir -p "stock/$(dirname "$1")"
		cp -p "$src/$1" "stock/$1.part"
		mv "stock/$1.part" "stock/$1"
		cat "stock/$1"
	fi
}

if ls "$series"/*.patch >/dev/null 2>&1; then
	sed -n -E 's,^(---|\+\+\+) [ab]/([^\t]*).*,\2,p' "$series"/*.patch | sort -u >patched
	while read -r file; do
		mkdir -p "want/$(dirname "$file")"
		stock "$file" >"want/$file"
		[ -s "want/$file" ] || rm "want/$file"
	done <patched
	for patch in "$series"/*.patch; do
		echo "apply ${patch#/mvpmu/}"
		patch -p1 -s -f --fuzz=0 --no-backup-if-mismatch -d want <"$patch"
	done
fi
# shellcheck disable=SC2046
overlay_files /mvpmu $(overlay_directories /mvpmu) >overlaid
while read -r file; do
	stock "$file" >/dev/null
	[ ! -f "want/$file" ] || { echo "$file is both patched and in the overlay"; exit 1; }
done <overlaid
rsync -rp --files-from=overlaid /mvpmu/ want/

# The files say what they need to know of mvpmu_mutant(); another one has it.
add_mutants() {
	mutants=/mvpmu/tools/testing/mvpmu/mutants
	events=arch/x86/events
	sed -n -E 's,^\+\+\+ b/,,p' "$mutants"/linux/*.diff | sort -u >mutated
	for file in $(cat mutated) $events/Makefile; do
		[ -f "want/$file" ] || {
			mkdir -p "want/$(dirname "$file")"
			stock "$file" >"want/$file"
		}
	done
	for diff in "$mutants"/linux/*.diff; do
		patch -p1 -s -f --fuzz=0 --no-backup-if-mismatch -d want <"$diff" || {
			echo "mutants/linux/${diff##*/} no longer applies to Linux: refresh it"
			exit 1
		}
	done
	while read -r file; do
		sed -i '0,/^#include/s//#include <linux\/mvpmu_mutant.h>\n&/' "want/$file"
	done <mutated
	mkdir -p want/include/linux
	cp "$mutants/build/mvpmu_mutant.h" want/include/linux/
	cp "$mutants/build/mvpmu_mutant.c" want/$events/
	echo 'obj-y += mvpmu_mutant.o' >>want/$events/Makefile
}
[ "$with" != mutants ] || add_mutants

find want -type f -printf '%P\n' | sort >wanted

# Until the copy is complete, both what was and what will be there counts as touched.
cp touched before
sort -u before wanted >touched.part
mv touched.part touched
comm -23 before wanted | while read -r file; do
	if [ -f "stock/$file" ]; then
		rsync -pc "stock/$file" "$src/$file"
	else
		rm -f "$src/$file"
	fi
done
rsync -rpci want/ "$src/"
cp wanted touched.part
mv touched.part touched
