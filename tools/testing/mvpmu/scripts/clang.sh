#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# clang.sh: the root file system with clang, and links build/rootfs-clang to it. A kernel with Rust and KASAN
# has to be built with it (init/Kconfig of Linux). Files are shared with the one without.
set -eu
# shellcheck source=tools/testing/mvpmu/scripts/lib.sh
. "$(dirname -- "$0")/lib.sh"
# shellcheck source=tools/testing/mvpmu/scripts/apt.sh
. "$SCRIPTS/apt.sh"

base=$(readlink -f "$BUILD/rootfs")
key=$({ basename "$base" && cat "$0"; } | sha256sum | cut -c1-12)
rootfs=$CACHE/clang-$key

# archives PACKAGE...: their names, and of what they depend on, in order.
archives() {
	mkdir -p "$APT/none/partial"
	apt_own -qq -o Dir::Cache::archives="$APT/none" install --print-uris --yes "$@" |
		sed -n "s/^'[^']*' \([^_ ]*\)_.*/\1/p" | sort
}

# Of what clang needs only what is not there yet.
download() {
	mkdir "$APT/clang"
	# shellcheck disable=SC2046
	archives $(sed 's/#.*//' "$SCRIPTS/packages") >"$APT/base-set"
	archives clang | comm -13 "$APT/base-set" - >"$APT/set"
	[ -s "$APT/set" ]
	# shellcheck disable=SC2046
	(cd "$APT/clang" && apt_own download $(cat "$APT/set"))
}

unpack() {
	cp -al "$base/." "$work"
	for deb in "$APT"/clang/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x --no-same-owner --keep-directory-symlink -C "$work"
	done
	# Written anew, it would be the other one's, too.
	rm "$work/etc/ld.so.cache"
	"$SCRIPTS/enter.sh" --rootfs "$work" ldconfig
}

cache_lock
if [ -d "$rootfs" ]; then
	have 'root file system, clang' "$key"
else
	apt_prepare
	rm -rf "$APT/clang" "$CACHE"/clang-*.part
	step 'download clang' download
	work=$rootfs.part
	mkdir "$work"
	step 'unpack clang' unpack
	mv -T "$work" "$rootfs"
	work=
	rm -rf "$APT/clang"
fi
ln -sfn "$rootfs" "$BUILD/rootfs-clang"
