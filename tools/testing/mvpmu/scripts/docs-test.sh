#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# docs-test.sh DIRECTORY: what Sphinx, the check of the ABI's files and rustdoc say of our pages, files
# and crates. Inside the root file system, when the kernel was built; TAP to DIRECTORY/docs.tap.
# Functions are run by test_that.
# shellcheck disable=SC2329
set -eu
TAP_DIRECTORY=$(realpath "$1")
cd /mvpmu
src=$(cat build/linux-source)
obj=$(dirname "$src")/main
# shellcheck source=tools/testing/mvpmu/initramfs/tap.sh
. tools/testing/mvpmu/initramfs/tap.sh
begin_testing docs
pages=$(find Documentation -name '*.rst' -printf '%P\n')
crates='rust/kernel/(kvm|perf|x86)'

# The folders that have pages of ours, and Linux's index of each.
sphinx() {
	folders=$(for page in $pages; do dirname "$page"; done | sort -u)
	# shellcheck disable=SC2086
	(cd "$src" && srctree=$src python3 tools/docs/sphinx-build-wrapper htmldocs \
		--sphinxdirs $folders --builddir "$TAP_DIRECTORY/html" >"$TAP_DIRECTORY/sphinx.log" 2>&1)
}

# Nothing is said of a page of ours, and the page is there.
page_is_clean() {
	! grep -F "Documentation/$1" "$TAP_DIRECTORY/sphinx.log" | grep -E 'WARNING|ERROR' || return 1
	find "$TAP_DIRECTORY/html" -name "$(basename "$1" .rst).html" | grep .
}

abi() {
	for file in Documentation/ABI/testing/*; do
		mkdir -p "$TAP_DIRECTORY/abi/testing"
		cp "$file" "$TAP_DIRECTORY/abi/testing/"
	done
	python3 "$src/tools/docs/get_abi.py" --dir "$TAP_DIRECTORY/abi" validate >"$TAP_DIRECTORY/abi.log" 2>&1
	cat "$TAP_DIRECTORY/abi.log"
	[ ! -s "$TAP_DIRECTORY/abi.log" ]
}

# rustdoc OBJECT [OPTION...]: as the compiler was called for OBJECT.
rustdoc_as_built() {
	object=$1
	shift
	command=$(sed -n '1s/^savedcmd_[^ ]* := //p' "$obj/$(dirname "$object")/.$(basename "$object").cmd" |
		sed -E 's/ ; .*//; s/ rustc / rustdoc /; s/ --(emit|out-dir)[= ][^ ]*//g')
	(cd "$obj" && RUSTC_BOOTSTRAP=1 sh -c "$command $* -o '$TAP_DIRECTORY/rustdoc'") \
		>"$TAP_DIRECTORY/$(basename "$object").log" 2>&1
}

# A finding is an empty line, what, and where.
findings_in() {
	awk -v where="$2" 'BEGIN { RS = "" } $0 ~ "--> [^ ]*" where { print; print "" ; n++ } END { exit !n }' \
		"$TAP_DIRECTORY/$1.log"
}

test_that 'Sphinx makes the pages' sphinx
for page in $pages; do
	test_that "Sphinx has nothing to say of $page" page_is_clean "$page"
done
test_that 'the files of the ABI are in order' abi
test_that 'rustdoc documents the kernel crate' rustdoc_as_built rust/kernel.o
test_that 'rustdoc has nothing to say of our part of it' not findings_in kernel.o "$crates"
test_that 'rustdoc documents the module, private items too' \
	rustdoc_as_built drivers/virt/mvpmu/mvpmu_main.o --document-private-items -Arustdoc::private_intra_doc_links
test_that 'rustdoc has nothing to say of it' not findings_in mvpmu_main.o drivers/virt/mvpmu
done_testing
