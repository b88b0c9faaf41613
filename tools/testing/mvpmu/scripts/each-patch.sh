#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# each-patch.sh VERSION DIRECTORY [FIRST]: that Linux compiles and boots after each patch of the series, or from
# the FIRST (a number) on, as TAP in DIRECTORY/each-patch.tap. Inside the root file system, for the version of
# build/main; takes up to an hour.
# Functions are run by test_that.
# shellcheck disable=SC2329
set -eu
# The copies are mounted where the originals are: what is compiled already stays so.
if [ "$1" != --inside ]; then
	mkdir -p "$2"
	exec unshare --mount --propagation unchanged sh "$0" --inside "$1" "$(readlink -f "$2")" "${3:-1}"
fi
shift
wanted=$1
TAP_DIRECTORY=$2
first=$3
# shellcheck source=tools/testing/mvpmu/scripts/commits.sh
. /mvpmu/tools/testing/mvpmu/scripts/commits.sh
# shellcheck source=tools/testing/mvpmu/scripts/stock.sh
. "$SCRIPTS/stock.sh"
# shellcheck source=tools/testing/mvpmu/initramfs/tap.sh
. "$TOP/tools/testing/mvpmu/initramfs/tap.sh"

src=$(cat "$TOP/build/linux-source-$wanted")
cached=${src%/src}
copy=$cached/each
tmp=$(mktemp -d)
trap 'rm -rf "$tmp" "$copy"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
cd "$TOP"
rm -rf "$copy"
mkdir "$copy"
# rsync, patch and git replace files and do not write into them; make writes.
cp -al "$src" "$copy/src"
cp -a "$cached/main" "$copy/main"
repo=$tmp/repo
mkdir "$repo"
export HOME="$tmp"
printf '[user]\n\tname = A Tester\n\temail = tester@example.org\n' >"$tmp/.gitconfig"
g init -q --template=
KDIR="Linux $wanted"
stock "$wanted" "$repo"
version_of "$repo/Makefile"
g add -A -f .
g commit -q -m "$KDIR"
make_commits "$(g rev-parse HEAD)"
files_in_series >"$tmp/all"
mount --bind "$copy/src" "$src"
mount --bind "$copy/main" "$cached/main"

# The tree becomes that of the commit.
check_out() {
	g checkout -q -f "$1"
	while read -r file; do
		if [ -f "$repo/$file" ]; then
			mkdir -p "$src/$(dirname "$file")"
			cmp -s "$repo/$file" "$src/$file" || cp --remove-destination "$repo/$file" "$src/$file"
		else
			rm -f "$src/$file"
		fi
	done <"$tmp/all"
}

compiles() {
	fragments=tools/testing/mvpmu/kernel/base.config
	own=tools/testing/mvpmu/kernel/$wanted.config
	[ ! -f "$own" ] || fragments="$fragments $own"
	[ ! -f "$src/drivers/virt/mvpmu/Kconfig" ] || fragments="$fragments tools/testing/mvpmu/kernel/mvpmu.config"
	fragments="$fragments tools/testing/mvpmu/kernel/pc.config"
	rm -f "$cached/main/.config.key"
	rm -rf "$tmp/built"
	# shellcheck disable=SC2086
	sh "$SCRIPTS/kernel-build.sh" config "$src" "$cached/main" $fragments &&
		sh "$SCRIPTS/kernel-build.sh" kernel "$src" "$cached/main" "$tmp/built"
}

# With KVM, and a guest that counts.
boots() {
	build/tools/mvpmu-run shell --kernel-image "$tmp/built/bzImage" --modules "$tmp/built/modules" --command \
		'load-kvm enable_mediated_pmu=1 && /selftests/kvm/pmu_event_filter_test && ! dmesg | grep -E "WARNING|BUG:"'
}

begin_testing each-patch
for commit in $(g rev-list --reverse "HEAD..$tip" | tail -n "+$first"); do
	subject=$(g log -1 --format=%s "$commit")
	check_out "$commit"
	test_that "$subject: it compiles" compiles
	test_that "$subject: it boots" boots
done
done_testing
