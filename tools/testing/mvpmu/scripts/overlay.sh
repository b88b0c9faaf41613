# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# The overlay: the files of this repository that belong into Linux, as patches/overlay says.

# overlay_lines TOP: its lines: a patch, then directories.
overlay_lines() {
	sed 's/#.*//' "$1/patches/overlay" | awk 'NF'
}

# overlay_directories TOP: all of them.
overlay_directories() {
	overlay_lines "$1" | awk '{ for (i = 2; i <= NF; i++) print $i }'
}

# overlay_files TOP DIRECTORY...: the files in them, without what a build or an editor leaves there.
overlay_files() (
	cd "$1" || exit
	shift
	find "$@" -type f ! -name '*.o' \( ! -name '.*' -o -name .gitignore \) | LC_ALL=C sort
)
