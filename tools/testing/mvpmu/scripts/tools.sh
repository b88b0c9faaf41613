#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# tools.sh: builds the test machines, the runner, the programs for L1 and its guests, and those for
# hosts, to build/tools. Kept in the cache under a sum of all that goes into them.
set -eu
# shellcheck source=tools/testing/mvpmu/scripts/lib.sh
. "$(dirname -- "$0")/lib.sh"
# shellcheck source=tools/testing/mvpmu/scripts/product.sh
. "$SCRIPTS/product.sh"

inner=/mvpmu/tools/testing/mvpmu
cd "$TOP/tools/testing/mvpmu"

cache_lock
sum=$({
	basename "$(readlink "$BUILD/rootfs")"
	sum_of Cargo.toml Cargo.lock kernel initramfs machine-tests scripts/tools-build.sh ./*/src ./*/Cargo.toml \
		./*/build.rs ../../kvm/mvpmu
} | sha256sum | cut -c1-12)

build_tools() {
	step 'test machines and runner' "$SCRIPTS/enter.sh" sh $inner/scripts/tools-build.sh "$1"
}

product tools "$sum" build_tools
