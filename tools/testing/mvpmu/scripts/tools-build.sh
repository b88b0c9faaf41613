#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# tools-build.sh DEST: builds the cargo workspaces, that of tools/kvm/mvpmu for any distribution, and
# the static programs of the initramfs.
# Inside the root file system.
set -eu
cd /mvpmu/tools/testing/mvpmu
out=/mvpmu/build/target/release
cargo build --release --locked --workspace
find $out -maxdepth 1 -type f \( -perm -100 -o -name '*.so' \) -exec cp {} "$1/" \;
# The libraries that both workspaces have are built once: only the programs are linked otherwise.
for program in mvpmu-check mvpmu-report mvpmu-top; do
	cargo rustc --release --locked --package $program --bin $program \
		--manifest-path /mvpmu/tools/kvm/mvpmu/Cargo.toml -- -C target-feature=+crt-static
	cp $out/$program "$1/"
done
for program in initramfs/*.c; do
	gcc -Wall -Wextra -Werror -O2 -static -o "$1/$(basename "$program" .c)" "$program"
done
for library in initramfs/preload/*.c; do
	gcc -Wall -Wextra -Werror -O2 -shared -fPIC -o "$1/$(basename "$library" .c).so" "$library"
done
for program in counted traced; do
	gcc -static -nostdlib -o "$1/$program" initramfs/$program.S
done
make -C machine-tests OUT="$1"
