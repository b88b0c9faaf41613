#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# libipt.sh: fetches Debian's libipt, a decoder of Intel PT, and builds a program with it that the tests of the
# Intel machine have as the judge of what that traces, to build/libipt. It is no part of the root file system,
# so that what is built there need not be built again.
set -eu
# shellcheck source=tools/testing/mvpmu/scripts/lib.sh
. "$(dirname -- "$0")/lib.sh"
# shellcheck source=tools/testing/mvpmu/scripts/apt.sh
. "$SCRIPTS/apt.sh"
# shellcheck source=tools/testing/mvpmu/scripts/product.sh
. "$SCRIPTS/product.sh"

program=tools/testing/mvpmu/bochs-vmm/tests/pt-flow.c

# fetch DIR: unpacks the packages there.
fetch() (
	cd "$1"
	apt_own download libipt-dev libipt2
	for package in ./*.deb; do
		dpkg-deb -x "$package" unpacked
	done
)

# build DIR: what the tests need of it, and the program.
build() {
	"$SCRIPTS/enter.sh" gcc -Wall -Wextra -Werror -O2 -I"$1/unpacked/usr/include" -o "$1/pt-flow" \
		"/mvpmu/$program" -L"$1/unpacked/usr/lib/x86_64-linux-gnu" -lipt "-Wl,-rpath,\$ORIGIN"
}

make_libipt() {
	apt_prepare
	step 'libipt' fetch "$work"
	step 'program with libipt' build "$1"
	cp "$work"/unpacked/usr/lib/x86_64-linux-gnu/libipt.so.2 "$work/"
	cp "$work"/unpacked/usr/share/doc/libipt2/copyright "$work/"
	rm -rf "$work"/unpacked "$work"/*.deb
}

cache_lock
sum=$({
	basename "$(readlink "$BUILD/rootfs")"
	cat "$0" "$TOP/$program"
} | sha256sum | cut -c1-12)
product libipt "$sum" make_libipt
