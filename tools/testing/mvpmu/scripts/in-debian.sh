# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# The installed Debian of debian.sh, as a directory to work in, inside the root file system. For those who
# source this, with the packages in build/deb.

# new_debian DIRECTORY: unpacks it to $root, and has our packages in its /debs. Whoever calls it is in a
# name space of mounts of its own.
new_debian() {
	root=$1
	rm -rf "$root"
	mkdir -p "$root"
	tar -C "$root" --no-same-owner -xpf /mvpmu/build/debian/root.tar
	mkdir "$root/debs"
	cp /mvpmu/build/deb/*.deb "$root/debs/"
	mount --bind /proc "$root/proc"
	mount --rbind /dev "$root/dev"
}

leave_debian() {
	umount -l "$root/proc" "$root/dev"
}

# in_debian COMMAND...: as the superuser of it. In a user namespace there is one user; files of others look
# to its programs as if they were made.
in_debian() {
	mkdir -p "$root/tmp/of-another"
	fake=
	chown 1:1 "$root/tmp/of-another" 2>/dev/null || fake=fakeroot-tcp
	rmdir "$root/tmp/of-another"
	# shellcheck disable=SC2086
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive \
		chroot "$root" $fake "$@"
}

# apt COMMAND PACKAGE...
apt() {
	in_debian apt-get -q -y -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0 -o DPkg::Options::=--force-unsafe-io \
		"$@" </dev/null
}
