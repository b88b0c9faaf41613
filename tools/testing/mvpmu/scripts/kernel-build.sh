#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# kernel-build.sh STEP SRC OBJ ...: the steps of a kernel build, inside the root file system.
#   config SRC OBJ FRAGMENT...   tinyconfig + fragments; every line of them must take effect
#   kernel SRC OBJ DEST          bzImage and modules, products to DEST
#   module SRC OBJ DEST          only the object code of our module, before it is linked
#   selftests SRC OBJ DEST       KVM's selftests of the list and ours, to DEST
#   every SRC OBJ DEST           every selftest of KVM for x86, to DEST
set -eu
step=$1
src=$2
obj=$3
shift 3
jobs=${MVPMU_JOBS:-$(nproc)}
# gcc, unless the variant wants another one.
compiler=CC=${MVPMU_CC:-gcc}
# The same input gives the same output.
export KBUILD_BUILD_TIMESTAMP='2026-01-01' KBUILD_BUILD_VERSION=1
export KBUILD_BUILD_USER=mvpmu KBUILD_BUILD_HOST=mvpmu LOCALVERSION="${MVPMU_LOCALVERSION:-}"

# What make tinyconfig does, the fragments, and defaults for the rest.
config() {
	key=$(find "$src/.mvpmu/want" -name 'Kconfig*' -print0 | sort -z |
		xargs -0 cat "$@" "$0" | sha256sum)
	[ "$(cat "$obj/.config.key" 2>/dev/null)" != "$key" ] || return 0
	mkdir -p "$obj"
	KCONFIG_ALLCONFIG=$src/kernel/configs/tiny-base.config make -s -C "$src" O="$obj" "$compiler" allnoconfig
	cat "$src/kernel/configs/tiny.config" "$src/arch/x86/configs/tiny.config" "$@" >>"$obj/.config"
	make -s -C "$src" O="$obj" "$compiler" olddefconfig 2>&1 | grep -v 'warning: override' || :
	# Of a name that more than one fragment has, the last line counts.
	lost=$(cat "$@" | awk '
		match($0, /CONFIG_[A-Za-z0-9_]+/) { last[substr($0, RSTART, RLENGTH)] = $0 }
		END { for (name in last) print last[name] }' | while read -r line; do
		case $line in
		CONFIG_*)
			grep -qxF "$line" "$obj/.config" || echo "$line"
			;;
		'# CONFIG_'*' is not set')
			name=${line#\# }
			! grep -q "^${name% is not set}=" "$obj/.config" || echo "$line"
			;;
		esac
	done)
	if [ -n "$lost" ]; then
		echo "These lines of the fragments have no effect (a dependency is missing):"
		echo "$lost"
		exit 1
	fi
	echo "$key" >"$obj/.config.key"
}

# make ends in order when it is interrupted, and leaves no half-made file. When it could not (a kill,
# a power failure), the mark is still there: what is newer than that is not to be trusted.
kernel() {
	mark=$obj/.building
	[ ! -e "$mark" ] || find "$obj" -type f -newer "$mark" ! -name '.config*' -delete
	# Before the long part, as it is soon done.
	! has_module || /mvpmu/tools/testing/mvpmu/scripts/mutants.sh "$src/drivers/virt/mvpmu" "$obj/mutants"
	touch "$mark"
	trap : INT TERM
	status=0
	make -C "$src" O="$obj" -j"$jobs" "$compiler" bzImage modules || status=$?
	rm "$mark"
	[ $status = 0 ] || exit $status
	mkdir -p "$1/modules"
	cp "$obj/arch/x86/boot/bzImage" "$obj/vmlinux" "$obj/System.map" "$1/"
	cp "$obj/.config" "$1/config"
	cp "$obj/include/config/kernel.release" "$1/release"
	find "$obj" -name '*.ko' ! -path "$obj/mutants/*" -exec cp {} "$1/modules/" \;
	! has_module || mutants "$1"
}

module() {
	make -C "$src" O="$obj" -j"$jobs" drivers/virt/mvpmu/mvpmu.o
	cp "$obj/drivers/virt/mvpmu/mvpmu.o" "$1/"
}

has_module() {
	grep -qx CONFIG_MVPMU=m "$obj/.config"
}

# The module once more, with deliberate bugs.
mutants() {
	make -C "$src" O="$obj" "$compiler" M="$obj/mutants" modules
	cp "$obj/mutants/mvpmu.ko" "$1/modules/mvpmu-mutants.ko"
	cp "$obj/mutants/sites" "$1/mutants"
}

selftests() {
	make -s -C "$src" O="$obj" headers
	include="-isystem $obj/usr/include"
	kvm=$obj/selftests/kvm
	list=$(sed 's/#.*//' /mvpmu/tools/testing/mvpmu/kernel/kvm-selftests | awk 'NF { print $1 }')
	mkdir -p "$1/kvm" "$1/mvpmu"
	# shellcheck disable=SC2046,SC2086
	make -C "$src/tools/testing/selftests/kvm" -j"$jobs" OUTPUT="$kvm" KHDR_INCLUDES="$include" \
		$(printf "$kvm/%s " $list)
	for test in $list; do
		cp "$kvm/$test" "$1/kvm/"
	done
	if [ -d "$src/tools/testing/selftests/mvpmu" ]; then
		ours=$obj/selftests/mvpmu
		mkdir -p "$ours"
		make -C "$src/tools/testing/selftests/mvpmu" -j"$jobs" OUTPUT="$ours" \
			KHDR_INCLUDES="$include"
		find "$ours" -maxdepth 1 -type f -perm -100 -exec cp {} "$1/mvpmu/" \;
	fi
	# A machine unpacks all of them each time it boots, and debugs none.
	find "$1" -type f -exec strip -g {} +
}

# They bring what they are built with, libkvm and its symbols: without these they are a twentieth.
every() {
	make -s -C "$src" O="$obj" headers
	kvm=$obj/selftests/kvm
	mkdir -p "$kvm"
	make -C "$src/tools/testing/selftests/kvm" -j"$jobs" OUTPUT="$kvm" \
		KHDR_INCLUDES="-isystem $obj/usr/include" all
	find "$kvm" -type f -perm -100 ! -name '*.o' ! -name '*.so' ! -name '*.sh' |
		while read -r test; do
			strip -o "$1/$(basename "$test")" "$test"
		done
}

$step "$@"
