#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# deb-test.sh DIRECTORY: tests of the packages of `make deb CONFIG=small`, what is in them and how they are
# installed. Inside the root file system; TAP to DIRECTORY/deb.tap.
# Functions are run by test_that.
# shellcheck disable=SC2329
set -eu
# The name space is the runner's; mounts are to go with us.
if [ "$1" != --inside ]; then
	exec unshare --mount --propagation unchanged sh "$0" --inside "$(readlink -f "$1")"
fi
TAP_DIRECTORY=$2
export LC_ALL=C.UTF-8
cd /mvpmu
# shellcheck source=tools/testing/mvpmu/scripts/in-debian.sh
. tools/testing/mvpmu/scripts/in-debian.sh
# shellcheck source=tools/testing/mvpmu/initramfs/tap.sh
. tools/testing/mvpmu/initramfs/tap.sh

begin_testing deb
work=$TAP_DIRECTORY/work
release=$(cat build/deb/release)
image=linux-image-$release
headers=linux-headers-$release
rm -rf "$work"
mkdir -p "$work"

# --- What is in them

# deb NAME: the file.
deb() {
	echo "build/deb/$1"_*.deb
}

packages_are() {
	for file in build/deb/*.deb; do
		dpkg-deb -f "$file" Package
	done | sort >"$work/got"
	printf '%s\n' "$@" | sort | diff - "$work/got"
}

field() {
	dpkg-deb -f "$(deb "$1")" "$2"
}

# One version, that of Linux with ours; nobody is invented.
fields_are_ours() {
	version=$(field mvpmu Version)
	for package in mvpmu mvpmu-perf "$image" "$headers"; do
		echo "$package"
		[ "$(field "$package" Version)" = "$version" ]
		[ "$(field "$package" Architecture)" = amd64 ]
		[ "$(field "$package" Maintainer)" = 'The mvpmu developers <mvpmu@mvpmu.invalid>' ]
		[ "$(field "$package" Section)" = kernel ]
	done
	echo "$version"
	[ "${version%%+*}" = "$release" ]
	dpkg --compare-versions "$release" lt "$version"
}

names_what_it_needs() {
	[ "$(field mvpmu Depends)" = 'mvpmu-module, kmod' ]
	field "$image" Provides
	[ "$(field "$image" Provides)" = "mvpmu-module (= $(field "$image" Version))" ]
	field "$image" Depends | grep -w linux-initramfs-tool
}

# Everything of the superuser, nobody else can write it, and of one time.
owned_and_old() {
	for file in build/deb/*.deb; do
		dpkg-deb -c "$file" | awk '
			$2 != "root/root" || (!/^l/ && substr($1, 9, 1) == "w") || $4 != "2026-01-01" {
				print
				wrong = 1
			}
			END { exit wrong }'
	done
}

has_kernel() {
	dpkg-deb -x "$(deb "$image")" "$work/image"
	cmp "$work/image/boot/vmlinuz-$release" build/main/bzImage
	cmp "$work/image/boot/config-$release" build/main/config
	find "$work/image" -name '*.ko' -printf '%f\n' | sort >"$work/got"
	find build/main/modules -name '*.ko' ! -name mvpmu-mutants.ko -printf '%f\n' | sort | diff - "$work/got"
}

has_tools() {
	dpkg-deb -x "$(deb mvpmu)" "$work/mvpmu"
	cmp "$work/mvpmu/usr/bin/mvpmu-top" build/tools/mvpmu-top
	cmp "$work/mvpmu/usr/bin/mvpmu-check" build/tools/mvpmu-check
	cmp "$work/mvpmu/usr/bin/mvpmu-report" build/tools/mvpmu-report
	for page in mvpmu-top mvpmu-check mvpmu-report; do
		zcat "$work/mvpmu/usr/share/man/man1/$page.1.gz" | cmp - tools/kvm/mvpmu/man/"$page.1"
	done
	[ "$(dpkg-deb --ctrl-tarfile "$(deb mvpmu)" | tar -xO ./conffiles)" = /etc/modprobe.d/mvpmu.conf ]
}

# The second build is of make; see the Makefile.
same_bytes() {
	for file in build/deb/*.deb; do
		cmp "$file" "build/deb-again/${file##*/}"
	done
}

# test_that in a condition would switch `set -e` off.
strictly() {
	(
		set -e
		"$@"
	)
}

each() {
	description=$1
	shift
	status=0
	set +e
	strictly "$@" >"$work/output" 2>&1
	status=$?
	set -e
	# shellcheck disable=SC2016
	test_that "$description" sh -c 'cat "$1"; exit "$2"' sh "$work/output" $status
}

each 'there are the kernel, its headers, mvpmu and perf' packages_are mvpmu mvpmu-perf "$image" "$headers"
each 'their fields are the same' fields_are_ours
each 'mvpmu needs a kernel that has the module' names_what_it_needs
each 'files are of the superuser, and of one time' owned_and_old
each 'kernel, configuration and modules are those of make kernel' has_kernel
each 'mvpmu has the tools, their manuals, and one file to change' has_tools
each 'a second build has the same bytes' same_bytes

# --- How they are installed

new_debian "$work/debian"
other=6.12.1-other
mkdir -p "$root/lib/modules/$other"
echo module >"$root/lib/modules/$other/a.ko"
echo kernel >"$root/boot/vmlinuz-$other"
echo initrd >"$root/boot/initrd.img-$other"

# What there is, but for lists of what is installed, and logs.
state() {
	(
		cd "$root"
		find . \( -path ./proc -o -path ./dev -o -path ./debs -o -path ./tmp -o -path ./var/lib/dpkg \
			-o -path ./var/cache -o -path ./var/lib/apt -o -path ./var/log -o -path ./run \) -prune \
			-o -printf '%y %m %p %l\n' | sort
		find boot etc usr/lib/modules -type f -print0 | sort -z | xargs -0 sha256sum
	)
}

# makes NAME VERSION COMMAND...: /debs/older.deb, the package NAME as that version, and as COMMAND has changed
# it.
make_older() {
	rm -rf "$work/older"
	dpkg-deb -R "$(deb "$1")" "$work/older"
	sed -i "s/^Version: .*/Version: $2/" "$work/older/DEBIAN/control"
	shift 2
	(cd "$work/older" && "$@")
	dpkg-deb -b "$work/older" "$root/debs/older.deb"
}

alone() {
	fails_with mvpmu-module apt install "/debs/$(basename "$(deb mvpmu)")"
}

conf=/etc/modprobe.d/mvpmu.conf

installed() {
	[ -s "$root/boot/vmlinuz-$release" ]
	[ -s "$root/boot/initrd.img-$release" ]
	in_debian dpkg --audit >"$work/got"
	# c: a file that may be changed.
	in_debian dpkg --verify mvpmu mvpmu-perf "$image" "$headers" | sed '/ c \//d' >>"$work/got"
	cat "$work/got"
	[ ! -s "$work/got" ]
}

# loads VALUE: modprobe would load the module so.
loads() {
	in_debian modprobe -S "$release" --dry-run --verbose mvpmu >"$work/got"
	cat "$work/got"
	grep -q '/mvpmu\.ko.* enable_passthrough_pmu='"$1" "$work/got"
	grep -q '/kvm\.ko' "$work/got"
}

loaded_at_boot() {
	find "$root/etc" "$root/usr/lib/modules-load.d" -path '*/modules-load.d/*' -exec cat {} + | grep -x mvpmu
}

others_are_there() {
	[ "$(cat "$root/boot/vmlinuz-$other" "$root/boot/initrd.img-$other" "$root/lib/modules/$other/a.ko")" = \
		"$(printf 'kernel\ninitrd\nmodule')" ]
}

# A module from somewhere else is built with the headers.
headers_build() {
	mkdir -p "$work/module"
	cat >"$work/module/empty.c" <<-'EOF'
		// SPDX-License-Identifier: GPL-2.0
		#include <linux/module.h>
		MODULE_LICENSE("GPL");
		MODULE_DESCRIPTION("Nothing");
	EOF
	echo 'obj-m := empty.o' >"$work/module/Makefile"
	make -C "$root/usr/src/$headers" M="$work/module" modules
	[ "$(modinfo -F vermagic "$work/module/empty.ko")" = \
		"$(modinfo -F vermagic build/main/modules/mvpmu.ko)" ]
}

files() {
	for package; do
		printf '/debs/%s\n' "$(basename "$(deb "$package")")"
	done
}

switch_off() {
	sed -i 's/^\(options mvpmu enable_passthrough_pmu=\)1/\10/' "$root$conf"
}

# perf finds its libraries, and each that it is linked with itself is of a package that it depends on.
perf_runs() {
	in_debian perf --version
	readelf -d "$root/usr/bin/perf" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' >"$work/needed"
	in_debian ldd /usr/bin/perf >"$work/got"
	not grep 'not found' "$work/got"
	awk 'NR == FNR { needed[$1]; next } $1 in needed && /=>/ { print $3 }' "$work/needed" "$work/got" >"$work/found"
	[ "$(wc -l <"$work/found")" -ge 10 ]
	while read -r library; do
		# dpkg knows it by the directory that /lib is a link to, or by the one in /usr.
		package=$(in_debian dpkg-query -S "$(in_debian readlink -f "$library")" | sed 's/:.*//')
		echo "$library: $package"
		field mvpmu-perf Depends | tr , '\n' | awk '{ print $1 }' | grep -qxF "$package"
	done <"$work/found"
}

upgrade_keeps() {
	make_older mvpmu 7.2~older true
	# shellcheck disable=SC2046
	apt install /debs/older.deb $(files "$image")
	switch_off
	# shellcheck disable=SC2046
	apt install $(files mvpmu)
	# shellcheck disable=SC2016
	[ "$(in_debian dpkg-query -W -f '${Version}' mvpmu)" = "$(field mvpmu Version)" ]
	loads 0
}

removed_loads_nothing() {
	apt remove mvpmu
	[ -f "$root$conf" ]
	not loaded_at_boot
	[ ! -e "$root/usr/bin/mvpmu-top" ]
}

purged() {
	apt purge mvpmu
	[ ! -e "$root$conf" ]
}

upgrade_brings() {
	make_older mvpmu 7.2~older sed -i 's/^#options.*//' etc/modprobe.d/mvpmu.conf
	apt install /debs/older.deb
	# shellcheck disable=SC2046
	apt install $(files mvpmu)
	cmp "$root$conf" "$work/mvpmu$conf"
}

kernel_is_upgraded() {
	touch -d 2020-01-01 "$root/boot/initrd.img-$release"
	make_older "$image" 7.2~older sh -c 'echo older >>boot/config-*; rm DEBIAN/md5sums'
	apt install --allow-downgrades /debs/older.deb
	# shellcheck disable=SC2046
	apt install $(files "$image")
	installed
	[ "$root/boot/initrd.img-$release" -nt "$root/boot/initrd.img-$other" ]
}

as_before() {
	# shellcheck disable=SC2046
	apt purge "$image" "$headers" mvpmu mvpmu-perf
	state >"$work/after"
	diff "$work/before" "$work/after"
}

state >"$work/before"
each 'mvpmu is not installed without such a kernel' alone
each 'an older mvpmu with what was changed: an upgrade keeps it' upgrade_keeps
each 'mvpmu is removed: nothing loads the module' removed_loads_nothing
each 'it is purged: the file goes' purged
each 'an older mvpmu with nothing changed: an upgrade brings the new file' upgrade_brings
# shellcheck disable=SC2046
each 'headers are installed' apt install $(files "$headers")
# shellcheck disable=SC2046
each 'perf is installed' apt install $(files mvpmu-perf)
each 'it has what it is linked with' perf_runs
each 'all is as dpkg wants it, with an initial root file system' installed
each 'the module is loaded at boot' loaded_at_boot
each 'it is on' loads 1
switch_off
each 'the file switches it off' loads 0
each 'a module can be built with the headers' headers_build
each 'a kernel is upgraded' kernel_is_upgraded
each 'other kernels are still there' others_are_there
each 'after a purge of all, everything is as before' as_before

leave_debian
[ $failures != 0 ] || rm -rf "$work"
done_testing
