#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# bochs.sh: fetches the Bochs core for the Intel machine, to build/bochs: a file out of a Python
# wheel, wheel and file both pinned by hash. Python itself is not needed to run it. pip takes the
# wheel from where it is configured to (PIP_INDEX_URL and the like).
set -eu

if [ "${1:-}" = --inside ]; then
	pins=/mvpmu/tools/testing/mvpmu/bochs-vmm/src
	dest=$2
	wheel=$(mktemp -d)
	pip download --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
		--python-version 312 --implementation cp --abi abi3 \
		--platform manylinux_2_28_x86_64 --dest "$wheel" \
		--requirement $pins/bochs.requirements
	python3 -m zipfile -e "$wheel"/*.whl "$wheel/content"
	cd "$wheel/content/bochscpu"
	sha256sum --check $pins/bochs.sha256
	cp _bochscpu.*.so "$dest/bochs.so"
	cp ../*.dist-info/licenses/* "$dest/"
	rm -rf "$wheel"
	exit
fi

# shellcheck source=tools/testing/mvpmu/scripts/lib.sh
. "$(dirname -- "$0")/lib.sh"
# shellcheck source=tools/testing/mvpmu/scripts/product.sh
. "$SCRIPTS/product.sh"

pins=$TOP/tools/testing/mvpmu/bochs-vmm/src

fetch() {
	step 'Bochs core' "$SCRIPTS/enter.sh" \
		sh /mvpmu/tools/testing/mvpmu/scripts/bochs.sh --inside "$1"
}

cache_lock
product bochs "$(cat "$pins/bochs.requirements" "$pins/bochs.sha256" "$0" | sha256sum | cut -c1-12)" fetch
