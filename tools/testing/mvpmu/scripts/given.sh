#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# given.sh: brings the kernel, modules and initial root file system that somebody wants to boot to
# build/given, where the root file system can see them: KERNEL_IMAGE (a bzImage, or a tree of Linux
# in which one was built), MODULES (a directory, searched for modules; that tree), INITRD.
set -eu
# shellcheck source=tools/testing/mvpmu/scripts/lib.sh
. "$(dirname -- "$0")/lib.sh"

given=$BUILD/given
rm -rf "$given"
mkdir -p "$given"

# bring FILE NAME
bring() {
	[ -f "$1" ] || die "there is no file $1"
	cp -L -- "$1" "$given/$2" || die "$1 cannot be copied to ${given#"$TOP/"}"
}

image=${KERNEL_IMAGE:-}
modules=${MODULES:-}
if [ -n "$image" ]; then
	if [ -d "$image" ]; then
		modules=${modules:-$image}
		image=$image/arch/x86/boot/bzImage
	fi
	bring "$image" kernel
fi
if [ -n "$modules" ]; then
	[ -n "$image" ] || die "MODULES is for a KERNEL_IMAGE"
	[ -d "$modules" ] || die "there is no directory $modules"
	mkdir "$given/modules"
	find "$modules" -name '*.ko' -exec cp -t "$given/modules" -- {} +
fi
[ -z "${INITRD:-}" ] || bring "$INITRD" initrd
