#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# apply-test.sh VERSION DIRECTORY [brief]: tests of `make apply`, `make unapply` and `make patches`, on trees of
# only those files of Linux that the series changes. Inside the root file system; TAP to
# DIRECTORY/VERSION.tap. brief: only those that could differ from version to version.
# Functions are run by test_that.
# shellcheck disable=SC2329
set -eu
wanted=$1
TAP_DIRECTORY=$2
length=${3:-whole}
# shellcheck source=tools/testing/mvpmu/scripts/commits.sh
. "$(dirname -- "$0")/commits.sh"
# shellcheck source=tools/testing/mvpmu/scripts/stock.sh
. "$SCRIPTS/stock.sh"
# shellcheck source=tools/testing/mvpmu/initramfs/tap.sh
. "$TOP/tools/testing/mvpmu/initramfs/tap.sh"

here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
cd "$here"
export HOME="$here/home" TMPDIR="$here"
mkdir home
git config --global user.name 'A Tester'
git config --global user.email 'tester@example.org'
git config --global init.defaultBranch main

begin_testing "$wanted"
staged=$(cat "$TOP/build/linux-source-$wanted")
stock "$wanted" "$here/stock"

# What the build of the kernel makes of the same files.
cp -a stock staged-tree
(cd "$staged/.mvpmu/want" && find . -type f -exec cp --parents {} "$here/staged-tree" \;)

apply() {
	KDIR=$1 "$SCRIPTS/apply.sh" apply
}

unapply() {
	KDIR=$1 "$SCRIPTS/apply.sh" unapply
}

# new_tree KIND NAME: a fresh tree.
new_tree() {
	rm -rf "$2"
	cp -a stock "$2"
	[ "$1" = plain ] || (cd "$2" && git init -q && git add -A -f && git commit -q -m Linux)
}

# What there is to know of a tree: names, modes, contents; of a git tree also branch, commit and index.
state() (
	cd "$1"
	find . -path ./.git -prune -o -printf '%y %m %p\n' | sort
	find . -path ./.git -prune -o -type f -print0 | sort -z | xargs -0 sha256sum
	[ ! -d .git ] || { git symbolic-ref HEAD && git rev-parse HEAD && git status --porcelain; }
)

# is_staged TREE: it has the files of the build.
is_staged() {
	diff -rq -x .git -x .mvpmu-applied staged-tree "$1"
}

# unchanged TREE COMMAND...: the command changes nothing there, whatever it returns.
unchanged() {
	tree=$1
	shift
	state "$tree" >before
	status=0
	"$@" || status=$?
	state "$tree" >after
	diff before after && return "$status"
	echo "$tree has changed"
	return 1
}

# one_line COMMAND...: it fails and says so in one line that begins with our name.
one_line() {
	if output=$("$@" 2>&1); then
		echo "$* did not fail"
		return 1
	fi
	echo "$output"
	[ "$(echo "$output" | wc -l)" = 1 ] && [ "${output#mvpmu: }" != "$output" ]
}

# says TEXT COMMAND...: it succeeds and says that.
says() {
	text=$1
	shift
	output=$("$@" 2>&1) || { echo "$output"; return 1; }
	echo "$output"
	case $output in
	*"$text"*) ;;
	*) return 1 ;;
	esac
}

# subjects TREE RANGE
subjects() {
	git -C "$1" log --reverse --format=%s "$2"
}

# The subjects that patches/VERSION and patches/text have.
expected_subjects() {
	for file in "$TOP/patches/$wanted"/*.patch; do
		git mailinfo body diff <"$file" | sed -n 's/^Subject: //p'
	done
	sed '/^#/d' "$TOP/patches/text/selftests" | head -n 1
}

commits_are_the_series() {
	subjects git "$base.." >got
	expected_subjects >expected
	diff expected got &&
		[ "$(git -C git log --format='%an %ae %cn' "$base.." | sort -u)" = \
			'A Tester tester@example.org A Tester' ]
}

# as_before TREE: it is as begin_with has found it.
as_before() {
	state "$1" >now
	diff "$1.before" now
}

# begin_with KIND NAME
begin_with() {
	new_tree "$@"
	state "$2" >"$2.before"
}

clean() {
	[ -z "$(git -C "$1" status --porcelain)" ]
}

# break_hunk TREE: the last patch of the series does not apply.
break_hunk() {
	sed -i 's/CONFIG_FSL_HV_MANAGER/CONFIG_OTHER/' "$1/drivers/virt/Makefile"
	[ ! -d "$1/.git" ] || git -C "$1" commit -q -a -m 'another line'
}

names_file_and_hunk() {
	fails_with 'drivers/virt/Makefile: @@ -4,6 +4,7 @@' "$@"
}

# --- What is the same for both kinds

for kind in git plain; do
	begin_with $kind $kind
	test_that "a $kind tree gets the series" apply $kind
	test_that 'its files are those of the build' is_staged $kind
	test_that 'the second time nothing changes' unchanged $kind says 'already' apply $kind
	if [ $kind = git ]; then
		base=$(git -C git rev-list --max-parents=0 HEAD)
		git -C git rev-parse 'HEAD^{tree}' >git.tree
		test_that 'it has a commit for each patch, by the caller' commits_are_the_series
		test_that 'nothing is left over' clean git
		git -C git commit -q --allow-empty -m 'on top'
		test_that 'a commit on top: unapply refuses and names it' \
			unchanged git fails_with 'on top' unapply git
		git -C git reset -q --hard HEAD~1
	fi
	cp -p $kind/drivers/virt/mvpmu/Kconfig kept
	echo >>$kind/drivers/virt/mvpmu/Kconfig
	test_that 'a changed file: unapply refuses and names it' \
		unchanged $kind fails_with 'drivers/virt/mvpmu/Kconfig' unapply $kind
	cp -p kept $kind/drivers/virt/mvpmu/Kconfig
	mount --bind $kind $kind
	mount -o remount,bind,ro $kind
	test_that 'a tree that cannot be written: unapply refuses' \
		unchanged $kind one_line unapply $kind
	umount $kind
	test_that 'unapply is possible' unapply $kind
	test_that 'it returns to what was before' as_before $kind
	test_that 'the second time there is nothing to do' unchanged $kind says 'nothing to do' unapply $kind

	mount --bind $kind $kind
	mount -o remount,bind,ro $kind
	test_that 'a tree that cannot be written: apply refuses' unchanged $kind one_line apply $kind
	umount $kind

	break_hunk $kind
	test_that 'a hunk that does not apply: apply refuses and names it' \
		unchanged $kind names_file_and_hunk apply $kind

	begin_with $kind $kind
	mkdir -p $kind/drivers/virt/mvpmu
	echo mine >$kind/drivers/virt/mvpmu/Kconfig
	test_that 'a file that is in the way: apply refuses and names it' \
		unchanged $kind fails_with 'drivers/virt/mvpmu/Kconfig' apply $kind

	begin_with $kind $kind
	sed -i 's/^PATCHLEVEL.*/PATCHLEVEL = 1/' $kind/Makefile
	[ $kind = plain ] || git -C git commit -q -a -m 7.1
	test_that 'another version: apply refuses, and lists those there are' \
		unchanged $kind fails_with '7.2, 7.3' apply $kind
done

# --- Mails

# That of the checkout is in use, perhaps.
mails() {
	rm -rf mails
	MVPMU_MAILS="$here/mails" "$SCRIPTS/mails.sh" "$wanted"
}

mails_make_the_tree() {
	git -C git am -q "$here"/mails/000[1-9]-* "$here"/mails/00[1-9]?-* &&
		git -C git rev-parse 'HEAD^{tree}' | diff git.tree -
}

every_mail_is_signed() {
	for mail in mails/*.patch; do
		case $mail in
		*/0000-*) ! grep -F '*** ' "$mail" ;;
		*) grep -qx 'Signed-off-by: A Tester <tester@example.org>' "$mail" ;;
		esac || { echo "$mail"; return 1; }
	done
}

test_that 'the series is made as mails' mails
new_tree git git
test_that 'the mails make the same tree as apply' mails_make_the_tree
test_that 'each but the letter is signed off, which is complete' every_mail_is_signed
git config --global --unset user.name
test_that 'git does not know the caller: one line' one_line mails
git config --global user.name 'A Tester'

[ "$length" = whole ] || done_testing

# --- Cut off
#
# In place of mv or git is a program that ends apply.sh when it is half done, with the signal SIGNAL.

mkdir bin
cat >bin/cut-off <<-'EOF'
	#!/bin/sh
	# Whoever runs apply.sh among those that have started us.
	pid=$PPID
	pids=
	while [ "$pid" -gt 1 ]; do
		case $(tr '\0' ' ' </proc/$pid/cmdline) in
		*/apply.sh*) pids="$pid $pids" ;;
		esac
		pid=$(awk '{ print $4 }' /proc/$pid/stat)
	done
	if [ "$SIGNAL" = KILL ]; then
		kill -KILL $pids
	else
		kill -"$SIGNAL" "${pids%% *}"
	fi
	exit 1
EOF
cat >bin/mv <<-'EOF'
	#!/bin/sh
	case "$*" in
	*/.mvpmu-applied/*) echo >>"$CALLS" ;;
	esac
	[ "$(wc -l <"$CALLS")" != 20 ] || exec cut-off
	exec /bin/mv "$@"
EOF
cat >bin/git <<-'EOF'
	#!/bin/sh
	case " $* " in
	*" restore "*)
		tr '\0' '\n' | awk 'NR % 2' | tr '\n' '\0' | /usr/bin/git "$@"
		exec cut-off
		;;
	esac
	exec /usr/bin/git "$@"
EOF
chmod +x bin/*

# cut_off SIGNAL COMMAND...
cut_off() {
	: >calls
	! CALLS="$here/calls" SIGNAL="$1" PATH="$here/bin:$PATH" "$2" "$3"
}

for kind in git plain; do
	begin_with $kind $kind
	cut_off TERM apply $kind
	test_that "$kind: apply that is interrupted leaves what was before" as_before $kind
	cut_off KILL apply $kind
	test_that 'apply that is killed is half done' not as_before $kind
	test_that 'unapply undoes it' unapply $kind
	test_that 'it returns to what was before' as_before $kind
	cut_off KILL apply $kind
	test_that 'apply is possible after one that was killed' apply $kind
	test_that 'the files are those of the build' is_staged $kind
	cut_off KILL unapply $kind
	test_that 'unapply that is killed is half done' not as_before $kind
	test_that 'unapply is possible after one that was killed' unapply $kind
	test_that 'it returns to what was before' as_before $kind
done

# --- No room

mkdir small
mount -t tmpfs -o size=5m none small
for kind in git plain; do
	begin_with $kind $kind
	cp -a $kind small/
	cp $kind.before small/
	head -c 100m /dev/zero >small/full 2>/dev/null || :
	truncate -s -1000000 small/full
	test_that "a $kind tree on a full disk: apply fails" not apply small/$kind
	test_that 'it leaves what was before' as_before small/$kind
	rm -rf small/full small/$kind
done
umount small

# --- Calls that make no sense

test_that 'no KDIR: one line' one_line apply ''
test_that 'no such directory: one line' one_line apply none
mkdir -p empty
test_that 'a directory without a Makefile: one line' one_line apply empty
echo all: >empty/Makefile
test_that 'a Makefile that is not of Linux: one line' one_line apply empty
git -C empty init -q
test_that 'a repository without a commit: one line' one_line apply empty
begin_with git git
git config --global --unset user.email
test_that 'git does not know the caller: one line' unchanged git one_line apply git
begin_with plain plain
test_that 'for a plain tree it need not' apply plain
git config --global user.email tester@example.org

done_testing
