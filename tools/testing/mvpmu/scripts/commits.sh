# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# The series with the overlay as commits, for a git repository with the tree of Linux. Runs where the
# caller's git is, not in the root file system. Nothing of the repository changes but that it gets
# objects: the commits are on no branch.

SCRIPTS=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
TOP=$(CDPATH='' cd -- "$SCRIPTS/../../../.." && pwd)
# shellcheck source=tools/testing/mvpmu/scripts/overlay.sh
. "$SCRIPTS/overlay.sh"
LC_ALL=C.UTF-8
export LC_ALL

die() {
	echo "mvpmu: $*" >&2
	exit 1
}

command -v git >/dev/null || die "git is missing"
# What a git that has called make has left, and what would change our patches or names of files.
# shellcheck disable=SC2046
unset $(git rev-parse --local-env-vars)
export GIT_LITERAL_PATHSPECS=1 GIT_OPTIONAL_LOCKS=0

# The callers set these: the repository, what it is called, and a directory for what is in between.
repo=
KDIR=
tmp=

# git in the repository. What depends on the user's taste is off.
g() {
	git -C "$repo" -c apply.whitespace=nowarn -c apply.ignoreWhitespace=no -c core.quotePath=off \
		-c core.hooksPath=/dev/null -c user.useConfigOnly=true "$@"
}

# The caller's name, or an error in one line.
know_author() {
	{ g var GIT_AUTHOR_IDENT && g var GIT_COMMITTER_IDENT; } >/dev/null 2>&1 ||
		die "git does not know your name: git config --global user.name NAME, and user.email ADDRESS"
}

# There are series for these versions of Linux.
versions() {
	find "$TOP/patches" -mindepth 1 -maxdepth 1 -name '[0-9]*' -printf '%f\n' | sort -V | tr '\n' ' ' |
		sed 's/ $//; s/ /, /g'
}

# version_of MAKEFILE: sets version, of a tree with a series for it.
version_of() {
	version=$(awk '/^(VERSION|PATCHLEVEL) *=/ { v[$1] = $3 }
		END { if ("VERSION" in v && "PATCHLEVEL" in v) print v["VERSION"] "." v["PATCHLEVEL"] }' "$1")
	[ -n "$version" ] || die "$KDIR is no tree of Linux: its Makefile names no version"
	[ -d "$TOP/patches/$version" ] ||
		die "$KDIR is Linux $version: there is a series for $(versions) only"
	series=$TOP/patches/$version
}

# A sum of what is applied, for version.
digest() {
	(
		cd "$TOP" || exit
		# shellcheck disable=SC2046
		{
			find "patches/$version" patches/text patches/overlay -type f ! -name '.*' | sort
			overlay_files . $(overlay_directories .)
		} | tr '\n' '\0' | xargs -0 sha256sum | sha256sum | cut -c1-16
	)
}

# files_in_series: all files that the series changes or the overlay brings.
files_in_series() {
	{
		sed -n -E 's,^(---|\+\+\+) [ab]/([^\t]*).*,\2,p' "$series"/*.patch
		# shellcheck disable=SC2046
		overlay_files "$TOP" $(overlay_directories "$TOP")
	} | sort -u
}

# refuse PATCH: says which hunks git did not want, and ends.
refuse() {
	{
		echo "mvpmu: ${1#"$TOP/"} does not apply to $KDIR; nothing is changed:"
		sed -n 's/^error: patch failed: \(.*\):\([0-9]*\)$/\1 \2/p' "$tmp/errors" |
			while read -r file line; do
				awk -v file="$file" -v line="$line" '
					/^\+\+\+ / { here = $2 == "b/" file }
					here && index($0, "@@ -" line ",") == 1 { hunk = $0 }
					END { print "  " file ": " (hunk ? hunk : "line " line) }' "$1"
			done
		sed -n -E '/patch (failed:|does not apply$)/!s/^error: /  /p' "$tmp/errors"
	} >&2
	exit 1
}

# Adds the files of directories to the index.
add_overlay() {
	overlay_files "$TOP" "$@" >"$tmp/files"
	there=$(tr '\n' '\0' <"$tmp/files" | xargs -0 git -C "$repo" ls-files -- | head -n 1)
	[ -z "$there" ] ||
		die "$there is in $KDIR already, but not in Linux $version; nothing is changed"
	while read -r file; do
		if [ -x "$TOP/$file" ]; then echo 100755; else echo 100644; fi
	done <"$tmp/files" >"$tmp/modes"
	sed "s,^,$TOP/," "$tmp/files" | g hash-object -w --no-filters --stdin-paths >"$tmp/blobs"
	paste "$tmp/modes" "$tmp/blobs" "$tmp/files" |
		awk -F '\t' '{ print $1 " " $2 "\t" $3 }' | g update-index --add --index-info
}

# commit_index MESSAGE: what is in the index as a commit on top of tip.
commit_index() {
	tip=$(g commit-tree "$(g write-tree)" -p "$tip" -F "$1")
}

# text NAME: a file in patches/text.
text() {
	sed '/^#/d' "$TOP/patches/text/$1" 2>/dev/null || die "there is no file $1 in patches/text"
}

# make_commits BASE: the series for version as commits on top of BASE; sets tip.
make_commits() {
	know_author
	GIT_INDEX_FILE=$tmp/index
	export GIT_INDEX_FILE
	g read-tree "$1"
	tip=$1
	overlay_lines "$TOP" >"$tmp/overlay"
	for patch in "$series"/*.patch; do
		g apply --cached --whitespace=nowarn "$patch" 2>"$tmp/errors" || refuse "$patch"
		name=${patch##*/????-}
		name=${name%.patch}
		directories=$(awk -v name="$name" '$1 == name { $1 = ""; print }' "$tmp/overlay")
		# shellcheck disable=SC2086
		[ -z "$directories" ] || add_overlay $directories
		g mailinfo "$tmp/body" "$tmp/diff" <"$patch" >"$tmp/info"
		{
			sed -n 's/^Subject: //p' "$tmp/info"
			echo
			cat "$tmp/body"
		} >"$tmp/message"
		commit_index "$tmp/message"
		awk -v name="$name" '$1 != name' "$tmp/overlay" >"$tmp/rest"
		mv "$tmp/rest" "$tmp/overlay"
	done
	while read -r name directories; do
		# shellcheck disable=SC2086
		add_overlay $directories
		text "$name" >"$tmp/message"
		commit_index "$tmp/message"
	done <"$tmp/overlay"
	unset GIT_INDEX_FILE
}
