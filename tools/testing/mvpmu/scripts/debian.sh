#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# debian.sh: an installed Debian 13 of few packages, deb/debian-packages, to test our packages in:
# build/debian/root.tar. Other than the root file system that everything is built in, it has run the
# packages' own scripts, has dpkg's list of what is installed, and Debian's init.
#
# debian.sh --inside DIRECTORY: installs DIRECTORY/archives/*.deb to DIRECTORY/root.tar, in the root file
# system.
set -eu

if [ "${1:-}" = --inside ]; then
	# shellcheck source=tools/testing/mvpmu/scripts/in-debian.sh
	. /mvpmu/tools/testing/mvpmu/scripts/in-debian.sh
	cd "$2"
	root=$2/root
	mkdir root
	# dpkg does not run without most of these.
	for deb in archives/base-files_*.deb archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" |
			tar -x --no-same-owner --keep-directory-symlink -C root
	done
	cp root/usr/share/base-passwd/passwd.master root/etc/passwd
	cp root/usr/share/base-passwd/group.master root/etc/group
	: >root/var/lib/dpkg/status
	printf '#!/bin/sh\nexit 101\n' >root/usr/sbin/policy-rc.d
	chmod +x root/usr/sbin/policy-rc.d
	mkdir root/debs
	mount --bind archives root/debs
	mount --bind /proc root/proc
	mount --rbind /dev root/dev
	in_debian dpkg --force-depends --force-unsafe-io --install --recursive /debs
	umount -l root/debs root/proc root/dev
	rmdir root/debs
	for directory in doc locale man; do
		find "root/usr/share/$directory" -type f -delete
	done
	tar -C root --numeric-owner --owner=0 --group=0 -cf root.tar .
	rm -rf root archives
	exit
fi

# shellcheck source=tools/testing/mvpmu/scripts/lib.sh
. "$(dirname -- "$0")/lib.sh"
# shellcheck source=tools/testing/mvpmu/scripts/apt.sh
. "$SCRIPTS/apt.sh"
# shellcheck source=tools/testing/mvpmu/scripts/product.sh
. "$SCRIPTS/product.sh"

list=$TOP/tools/testing/mvpmu/deb/debian-packages

install_debian() {
	apt_prepare
	step 'download Debian' download
	step 'install Debian' "$SCRIPTS/enter.sh" sh /mvpmu/tools/testing/mvpmu/scripts/debian.sh --inside "$1"
}

download() {
	mkdir -p "$work/archives/partial"
	# shellcheck disable=SC2046
	apt_own -o Dir::Cache::archives="$work/archives" install --download-only --yes \
		$(sed 's/#.*//' "$list")
}

cache_lock
product debian "$(cat "$list" "$0" | sha256sum | cut -c1-12)" install_debian
