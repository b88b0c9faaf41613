#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# rootfs.sh: builds the Debian 13 + backports root file system and links build/rootfs to it.
#
# The packages are resolved and fetched by the host's apt on a directory tree of our own, and
# unpacked without their maintainer scripts: no privilege is needed, and root and an ordinary user
# do the same.
set -eu
# shellcheck source=tools/testing/mvpmu/scripts/lib.sh
. "$(dirname -- "$0")/lib.sh"
# shellcheck source=tools/testing/mvpmu/scripts/apt.sh
. "$SCRIPTS/apt.sh"

packages=$(sed 's/#.*//' "$SCRIPTS/packages" | xargs)
key=$(cat "$SCRIPTS/packages" "$0" | sha256sum | cut -c1-12)
rootfs=$CACHE/rootfs-$key

download() {
	# shellcheck disable=SC2086
	apt_own install --download-only --yes $packages ||
		{ apt_update && apt_own install --download-only --yes $packages; }
}

# The archives of this very set of packages: an interrupted download may have left others.
archives() {
	mkdir -p "$APT/none/partial"
	# shellcheck disable=SC2086
	apt_own -qq -o Dir::Cache::archives="$APT/none" install --print-uris --yes $packages |
		sed -n "s/^'[^']*' \([^ ]*\) .*/\1/p"
}

unpack() {
	archives >"$APT/set"
	[ -s "$APT/set" ]
	while read -r deb; do
		dpkg-deb --fsys-tarfile "$APT/archives/$deb" | tar -x --no-same-owner --keep-directory-symlink -C "$work"
	done <"$APT/set"
	# What the maintainer scripts would have done, as far as we need it.
	cp "$work/usr/share/base-passwd/passwd.master" "$work/etc/passwd"
	cp "$work/usr/share/base-passwd/group.master" "$work/etc/group"
	ln -sf gawk "$work/usr/bin/awk"
	ln -sf gcc "$work/usr/bin/cc"
	mkdir -p "$work/etc/ssl/certs" "$work/mvpmu" "$work/cache" "$work/.cargo"
	find "$work/usr/share/ca-certificates" -name '*.crt' -exec cat {} + \
		>"$work/etc/ssl/certs/ca-certificates.crt"
	for f in etc/resolv.conf etc/hosts etc/pip.conf .cargo/config.toml; do
		: >"$work/$f"
	done
	"$SCRIPTS/enter.sh" --rootfs "$work" ldconfig
}

cache_lock
if [ -d "$rootfs" ]; then
	have 'root file system' "$key"
else
	free=$(df --output=avail -k "$CACHE" | tail -n 1)
	[ "$free" -gt 8000000 ] || die "$CACHE needs 8 GB of free disk space, there are $((free / 1000000)) GB"
	apt_prepare
	step 'download packages' download
	rm -rf "$CACHE"/rootfs-*.part
	work=$rootfs.part
	mkdir "$work"
	step 'unpack root file system' unpack
	mv -T "$work" "$rootfs"
	work=
	rm -rf "$APT/archives"
fi
touch "$rootfs"
ln -sfn "$rootfs" "$BUILD/rootfs"
