#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# apply.sh apply|unapply: brings the series and the overlay into somebody's tree of Linux, KDIR, and
# out of it. Runs where the caller's git is, not in the root file system.
#
# A git tree gets commits, one for each patch, on the branch that is checked out (or on a detached
# HEAD). mvpmu-applied in its git directory has a line for each such range of commits: tip, base,
# digest. In a plain tree, the directory .mvpmu-applied keeps what was there before.
#
# Nothing is changed in the tree before all is ready. If the change itself is cut off, even by a
# power failure, the next call undoes what was done of it, and then does what it is called for.
set -eu
kdir=${KDIR:-}
# shellcheck source=tools/testing/mvpmu/scripts/commits.sh
. "$(dirname -- "$0")/commits.sh"

action=$1
KDIR=$kdir
[ -n "$KDIR" ] || die "say which tree: make $action KDIR=DIRECTORY"
# Not every shell has done this.
case $KDIR in
\~/*) KDIR=${HOME:-}/${KDIR#??} ;;
esac
[ -d "$KDIR" ] || die "$KDIR is no directory"
KDIR=$(readlink -f -- "$KDIR")
[ -f "$KDIR/Makefile" ] || die "$KDIR is no tree of Linux: it has no Makefile"

tmp=$(mktemp -d)
moving=
finish() {
	status=$?
	trap - EXIT
	[ -z "$moving" ] || "$moving"
	rm -rf "$tmp"
	exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The files that differ between two commits, in $tmp/changed with status, and their names in $tmp/names.
changes() {
	g diff-tree -r --no-renames --name-status "$1" "$2" >"$tmp/changed"
	cut -f2 "$tmp/changed" >"$tmp/names"
}

# --- A git tree

# each_name COMMAND...: runs a command of git with the names.
each_name() {
	tr '\n' '\0' <"$tmp/names" | xargs -0 -r git -C "$repo" -c core.hooksPath=/dev/null "$@" --
}

# Undoes a move that was cut off: index and files are what HEAD has.
git_undo() {
	moving=
	read -r from to <"$mark"
	if [ "$(g rev-parse HEAD)" = "$from" ]; then
		changes "$from" "$to"
		# Nobody's work goes: each file is one of the two.
		while read -r name; do
			[ -f "$repo/$name" ] || continue
			blob=$(g hash-object -- "$name")
			[ "$blob" = "$(g rev-parse -q --verify "$from:$name")" ] ||
				[ "$blob" = "$(g rev-parse -q --verify "$to:$name")" ] ||
				die "$name in $KDIR was changed after a run that was cut off: save it, remove it, and try again"
		done <"$tmp/names"
		each_name reset -q "$from"
		sed -n 's/^A\t//p' "$tmp/changed" | while read -r name; do
			rm -f "$repo/$name"
			[ ! -d "$repo/$(dirname "$name")" ] ||
				(cd "$repo" && rmdir -p --ignore-fail-on-non-empty "$(dirname "$name")")
		done
		sed -n '/^A\t/!s/^.\t//p' "$tmp/changed" >"$tmp/names"
		each_name checkout -q "$from"
	fi
	rm "$mark"
}

# writable NAME: whether the file can be made or replaced, or the end.
writable() {
	directory=$KDIR/$1
	until [ -d "$directory" ]; do directory=$(dirname "$directory"); done
	[ -w "$directory" ] || die "$directory cannot be written; nothing is changed"
}

# git_move FROM TO WHY: HEAD, index and work tree from one commit to the other.
git_move() {
	changes "$1" "$2"
	busy=$(each_name diff --name-only HEAD | head -n 1)
	[ -z "$busy" ] || die "$busy in $KDIR has changes: commit or stash them first"
	while read -r what name; do
		[ "$what" != A ] || ! [ -e "$repo/$name" ] ||
			die "$name is in $KDIR, but in no commit: move it away first"
		writable "$name"
	done <"$tmp/changed"
	echo "$1 $2" >"$mark"
	moving=git_undo
	tr '\n' '\0' <"$tmp/names" |
		g restore --source="$2" --staged --worktree --pathspec-from-file=- --pathspec-file-nul
	g update-ref -m "$3" HEAD "$2" "$1"
	moving=
	rm "$mark"
}

# Looks for what is applied: sets found_tip, found_base, found_digest.
git_find() {
	found_tip=
	[ -f "$record" ] || return 0
	while read -r line_tip line_base line_digest; do
		if g merge-base --is-ancestor "$line_tip" HEAD 2>/dev/null; then
			found_tip=$line_tip
			found_base=$line_base
			found_digest=$line_digest
		fi
	done <"$record"
}

git_begin() {
	directory=$(g rev-parse --absolute-git-dir)
	mark=$directory/mvpmu-moving
	record=$(cd "$repo" && readlink -f -- "$(git rev-parse --git-common-dir)")/mvpmu-applied
	g rev-parse -q --verify 'HEAD^{commit}' >/dev/null || die "$KDIR has no commit yet"
	for path in "$directory" "$(cd "$repo" && readlink -f -- "$(git rev-parse --git-path objects)")"; do
		[ -w "$path" ] || die "$path cannot be written; nothing is changed"
	done
	[ ! -f "$mark" ] || git_undo
	for state in MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD rebase-merge rebase-apply; do
		[ ! -e "$directory/$state" ] ||
			die "a merge, rebase or the like is going on in $KDIR: end it first"
	done
	head=$(g rev-parse HEAD)
	git_find
}

git_apply() {
	git_begin
	g show HEAD:Makefile >"$tmp/Makefile" 2>/dev/null || die "$KDIR is no tree of Linux: it has no Makefile"
	version_of "$tmp/Makefile"
	digest=$(digest)
	if [ -n "$found_tip" ]; then
		[ "$digest" = "$found_digest" ] ||
			die "$KDIR has another state of the series: make unapply KDIR=$KDIR first"
		echo "the series is in $KDIR already: $(g rev-list --count "$found_base..$found_tip") commits up to $(g rev-parse --short "$found_tip")"
		return
	fi
	make_commits "$head"
	# A line whose commits are not in the branch says nothing.
	echo "$tip $head $digest" >>"$record"
	git_move "$head" "$tip" "mvpmu: apply"
	echo "$KDIR: Linux $version with mvpmu, $(g rev-list --count "$head..$tip") commits on $(g symbolic-ref -q --short HEAD || echo 'a detached HEAD'), $(wc -l <"$tmp/names") files"
}

git_unapply() {
	git_begin
	if [ -z "$found_tip" ]; then
		echo "the series is not in $KDIR: nothing to do"
		return
	fi
	[ "$found_tip" = "$head" ] ||
		die "$(g rev-list --count "$found_tip..HEAD") commits are on top of the series in $KDIR, the last is '$(g log -1 --format='%h %s')': take them off first (git rebase --onto $(g rev-parse --short "$found_base") $(g rev-parse --short "$found_tip") moves them)"
	git_move "$head" "$found_base" "mvpmu: unapply"
	grep -v "^$found_tip " "$record" >"$tmp/record" || :
	cp "$tmp/record" "$record"
	[ -s "$record" ] || rm "$record"
	echo "$KDIR is as before: $(wc -l <"$tmp/names") files"
}

# --- A plain tree
#
# .mvpmu-applied/digest   what is applied
#               /files    A (added) or M (modified), sum of the file of ours, name
#               /made     directories that were made
#               /before/  the modified files, as they were
#               /want/    ours, until they are in place: while it is there, apply is not finished
#               /leaving  unapply has begun

sum() {
	sha256sum <"$1" | cut -d' ' -f1
}

# Takes the files away again, as far as they have come.
plain_undo() {
	moving=
	while read -r what _ name; do
		if [ "$what" = A ]; then
			rm -f "$KDIR/$name"
		elif [ -e "$kept/before/$name" ] || [ -L "$kept/before/$name" ]; then
			# With the time of now: make must see it.
			touch -c -h "$kept/before/$name"
			mv -f "$kept/before/$name" "$KDIR/$name"
		fi
	done <"$kept/files"
	while read -r directory; do
		rmdir "$KDIR/$directory" 2>/dev/null || :
	done <"$kept/made"
	rm -rf "$kept"
}

plain_begin() {
	kept=$KDIR/.mvpmu-applied
	rm -rf "$kept.part" 2>/dev/null || die "$KDIR cannot be written"
	[ ! -d "$kept/want" ] && [ ! -e "$kept/leaving" ] || plain_undo
}

plain_apply() {
	plain_begin
	version_of "$KDIR/Makefile"
	digest=$(digest)
	if [ -d "$kept" ]; then
		[ "$digest" = "$(cat "$kept/digest")" ] ||
			die "$KDIR has another state of the series: make unapply KDIR=$KDIR first"
		echo "the series is in $KDIR already: $(wc -l <"$kept/files") files"
		return
	fi
	# As commits on a tree of the files that matter.
	repo=$tmp/repo
	mkdir "$repo"
	g init -q --template=
	g config core.autocrlf false
	files_in_series >"$tmp/all"
	(
		cd "$KDIR"
		while read -r name; do
			[ ! -f "$name" ] || printf '%s\0' "$name"
		done <"$tmp/all" | xargs -0 -r cp -L --parents -t "$repo" Makefile
	)
	GIT_AUTHOR_NAME=mvpmu GIT_AUTHOR_EMAIL=mvpmu GIT_COMMITTER_NAME=mvpmu GIT_COMMITTER_EMAIL=mvpmu
	export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL
	g add -A -f .
	base=$(g commit-tree "$(g write-tree)" -m "$KDIR")
	make_commits "$base"
	changes "$base" "$tip"

	while read -r _ name; do
		writable "$name"
	done <"$tmp/changed"
	writable .
	mkdir "$kept.part"
	moving=plain_discard
	mkdir "$kept.part/want" "$kept.part/before"
	GIT_INDEX_FILE=$tmp/index g checkout-index -a --prefix="$tmp/tip/"
	while read -r what name; do
		mkdir -p "$kept.part/want/$(dirname "$name")" "$kept.part/before/$(dirname "$name")"
		cp "$tmp/tip/$name" "$kept.part/want/$name"
		if [ "$what" = M ]; then
			cp -a "$KDIR/$name" "$kept.part/before/$name"
			chmod --reference="$KDIR/$name" "$kept.part/want/$name"
		elif [ "$what" != A ]; then
			die "$name: the series deletes it, which apply cannot do in a plain tree"
		fi
		echo "$what $(sum "$tmp/tip/$name") $name"
	done <"$tmp/changed" >"$kept.part/files"
	sed 's,/[^/]*$,,' "$tmp/names" | awk -F/ '{ path = ""
		for (i = 1; i <= NF; i++) { path = path (i > 1 ? "/" : "") $i; print path } }' | sort -ru |
		while read -r directory; do
			[ -d "$KDIR/$directory" ] || echo "$directory"
		done >"$kept.part/made"
	echo "$digest" >"$kept.part/digest"
	sync "$kept.part"/* 2>/dev/null || :

	mv "$kept.part" "$kept"
	moving=plain_undo
	while read -r _ _ name; do
		mkdir -p "$KDIR/$(dirname "$name")"
		mv -f "$kept/want/$name" "$KDIR/$name"
	done <"$kept/files"
	moving=
	rm -rf "$kept/want"
	echo "$KDIR: Linux $version with mvpmu, $(wc -l <"$kept/files") files"
}

plain_discard() {
	moving=
	rm -rf "$kept.part"
}

plain_unapply() {
	plain_begin
	if [ ! -d "$kept" ]; then
		echo "the series is not in $KDIR: nothing to do"
		return
	fi
	while read -r _ old name; do
		[ -f "$KDIR/$name" ] && [ "$(sum "$KDIR/$name")" = "$old" ] ||
			die "$name in $KDIR was changed since: nothing is changed (what was there before is in .mvpmu-applied/before)"
		writable "$name"
	done <"$kept/files"
	writable .
	count=$(wc -l <"$kept/files")
	: >"$kept/leaving"
	moving=plain_undo
	plain_undo
	echo "$KDIR is as before: $count files"
}

# A tree that is a part of another repository is a plain one for us.
repo=$KDIR
kind=plain
if [ -e "$KDIR/.git" ]; then
	git -C "$KDIR" rev-parse --show-toplevel >"$tmp/top" 2>"$tmp/errors" ||
		die "$KDIR: git says $(head -n 1 "$tmp/errors")"
	[ "$(readlink -f -- "$(cat "$tmp/top")")" != "$KDIR" ] || kind=git
fi
"${kind}_$action"
