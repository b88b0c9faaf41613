#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# mails.sh VERSION: the series for a version of Linux as mails, with a cover letter, in
# build/patches/VERSION: each of our files is in the patch where it belongs. Author and sign-off are
# those of the caller's git configuration. Runs where the caller's git is, not in the root file system.
set -eu
# shellcheck source=tools/testing/mvpmu/scripts/commits.sh
. "$(dirname -- "$0")/commits.sh"
# shellcheck source=tools/testing/mvpmu/scripts/stock.sh
. "$SCRIPTS/stock.sh"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mails=${MVPMU_MAILS:-$TOP/build/patches/$1}
repo=$tmp/repo
KDIR="Linux $1"
series=$TOP/patches/$1
[ -d "$series" ] || die "there is a series for $(versions) only, not for Linux $1"
mkdir "$repo"
g init -q --template=
g config core.autocrlf false
know_author
stock "$1" "$repo"
version_of "$repo/Makefile"
g add -A -f .
base=$(g commit-tree "$(g write-tree)" -m "$KDIR")
make_commits "$base"

rm -rf "$mails.part"
mkdir -p "$mails.part"
g -c format.notes=false format-patch -q --cover-letter --numbered --signoff --from \
	--subject-prefix=PATCH --zero-commit --no-signature --no-base --no-thread --no-attach \
	--no-to --no-cc --no-add-header --suffix=.patch -o "$mails.part" "$base..$tip"

{
	text cover | sed 1,2d
	echo
	echo "It is for $KDIR.$(awk '/^SUBLEVEL *=/ { print $3 }' "$repo/Makefile")."
	echo
	if [ -s "$TOP/build/bench/switch.md" ]; then
		echo 'What a VM exit and sampling cost, with the C code and with the module, on'
		echo 'emulated machines:'
		sed '/^<!--/d' "$TOP/build/bench/switch.md"
	else
		echo 'There are no figures: make bench has not been run here.'
	fi
} >"$tmp/cover"
cover=$(echo "$mails.part"/0000-*)
awk -v subject="$(text cover | head -n 1)" -v cover="$tmp/cover" '
	{ sub(/\*\*\* SUBJECT HERE \*\*\*/, subject) }
	/^\*\*\* BLURB HERE \*\*\*$/ {
		getline
		while ((getline line < cover) > 0)
			print line
		print ""
		next
	}
	{ print }' "$cover" >"$tmp/letter"
cp "$tmp/letter" "$cover"
rm -rf "$mails"
mv "$mails.part" "$mails"
echo "${mails#"$TOP/"}: $(find "$mails" -name '*.patch' ! -name '0000-*' | wc -l) patches and a cover letter"
