#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# kernel.sh VARIANT: builds the kernel, its modules and the selftests; the products come to
# build/VARIANT. VARIANT is `main`, or `debug` for the same with lockdep and assertions, or `rt` for that with
# PREEMPT_RT, or `kcsan` or `kasan` for the sanitizers, or `mutants`: `main` with deliberate bugs, or
# `source`: only unpack Linux, apply the series and lay the overlay over it, or `kconfig`: its programs conf and mconf, or `deb`: Debian packages, of the kernel with the configuration CONFIG, and mvpmu, or `deb-again`:
# the same once more, or `static-branches`: only the module's object code, with CONFIG_JUMP_LABEL, or
# `every-selftest`: all of KVM's selftests. KERNEL=7.2 selects another version of linux-source than 7.3. What
# .config (KCONFIG_CONFIG) says of mvpmu goes into the variant that it names, VARIANT.
#
# Products are kept in the cache under a sum of all that goes into them.
set -eu
# shellcheck source=tools/testing/mvpmu/scripts/lib.sh
. "$(dirname -- "$0")/lib.sh"
# shellcheck source=tools/testing/mvpmu/scripts/source.sh
. "$SCRIPTS/source.sh"
# shellcheck source=tools/testing/mvpmu/scripts/product.sh
. "$SCRIPTS/product.sh"

variant=${1:-main}
packages=
case $variant in
deb | deb-again)
	packages=$variant
	# Of the configuration small the objects are those of make kernel.
	variant=main
	base=${CONFIG:-amd64}
	case $base in
	small) ;;
	amd64) flavour=amd64 ;;
	cloud) flavour=cloud-amd64 ;;
	*) die "CONFIG=$base: there are small, cloud and amd64" ;;
	esac
	;;
mutants)
	# Its modules are not main's, and in a boot menu it comes after main.
	export MVPMU_LOCALVERSION='~mutants'
	;;
esac
enter=$SCRIPTS/enter.sh
inner=/mvpmu/tools/testing/mvpmu
cd "$TOP"

# Rust in a kernel with KASAN needs clang.
if [ "$variant" = kasan ]; then
	"$SCRIPTS/clang.sh"
	MVPMU_ROOTFS=$BUILD/rootfs-clang
	MVPMU_CC=clang
	export MVPMU_ROOTFS MVPMU_CC
fi

cache_lock
source_package "${KERNEL:-7.3}"

fragments=$inner/kernel/base.config
own=tools/testing/mvpmu/kernel/$version.config
[ ! -e "$own" ] || fragments="$fragments /mvpmu/$own"
[ ! -d drivers/virt/mvpmu ] || fragments="$fragments $inner/kernel/mvpmu.config"
case $variant in
debug) fragments="$fragments $inner/kernel/debug.config" ;;
rt) fragments="$fragments $inner/kernel/debug.config $inner/kernel/rt.config" ;;
kcsan | kasan) fragments="$fragments $inner/kernel/$variant.config" ;;
static-branches) fragments="$fragments $inner/kernel/static-branches.config" ;;
*) fragments="$fragments $inner/kernel/pc.config" ;;
esac

# Of .config what the fragments do not say yet.
options=build/options.config
rm -f "$options"
config=${KCONFIG_CONFIG:-.config}
if [ -f "$config" ] && [ "$variant" = "${VARIANT:-main}" ]; then
	# shellcheck disable=SC2046,SC2086
	"$SCRIPTS/options.sh" --own "$config" | awk '
		/^CONFIG_/ || /^# CONFIG_.* is not set$/ {
			match($0, /CONFIG_[A-Za-z0-9_]+/)
			name = substr($0, RSTART, RLENGTH)
			value = /^#/ ? "" : $0
			if (FILENAME != "-")
				last[name] = value
			else if (value != last[name])
				print
		}' $(printf '%s\n' $fragments | sed 's,^/mvpmu/,,') - >"$options"
	if [ -s "$options" ]; then
		fragments="$fragments /mvpmu/$options"
	else
		rm "$options"
	fi
fi

# existing PATH...: those that are there
existing() {
	for path in "$@"; do
		[ ! -e "$path" ] || printf '%s\n' "$path"
	done
}

# shellcheck disable=SC2046
linux_sum=$({
	echo "$package $fragments${MVPMU_LOCALVERSION:+ $MVPMU_LOCALVERSION}"
	basename "$(readlink "$BUILD/rootfs")"
	sum_of $(existing "patches/$version" drivers rust arch include \
		tools/testing/mvpmu/kernel/*.config "$options") patches/overlay tools/testing/mvpmu/mutants \
		tools/testing/mvpmu/scripts/kernel-build.sh tools/testing/mvpmu/scripts/mutants.sh \
		tools/testing/mvpmu/scripts/stage.sh tools/testing/mvpmu/scripts/overlay.sh
} | sha256sum | cut -c1-12)
# shellcheck disable=SC2046
tests_sum=$({
	echo "$linux_sum"
	sum_of $(existing tools/testing/selftests/mvpmu) tools/testing/mvpmu/kernel/kvm-selftests
} | sha256sum | cut -c1-12)

linux=linux-$version-$package_version
src=/cache/$linux/src
obj=/cache/$linux/$variant
# Almost all objects are the same.
[ "$variant" != mutants ] || obj=/cache/$linux/main

unpack_source() {
	rm -rf "${CACHE:?}/$linux"
	mkdir -p "$CACHE/$linux/part"
	dpkg-deb --fsys-tarfile "$CACHE/source/$package" |
		tar -xO "./usr/src/linux-source-$version.tar.xz" >"$CACHE/$linux/source.tar.xz"
	"$enter" tar -C "/cache/$linux/part" --strip-components=1 --no-same-owner \
		-xf "/cache/$linux/source.tar.xz"
	rm "$CACHE/$linux/source.tar.xz"
	mv -T "$CACHE/$linux/part" "$CACHE/$linux/src"
}

unpacked() {
	[ -d "$CACHE/$linux/src" ] || step "unpack Linux $version" unpack_source
}

staged=
stage() {
	[ -z "$staged" ] || return 0
	staged=1
	unpacked
	step 'patches and overlay' "$enter" sh $inner/scripts/stage.sh "$src" "$version" "$variant"
}

build_linux() {
	stage
	# shellcheck disable=SC2086
	step "configure ($variant)" "$enter" sh $inner/scripts/kernel-build.sh config "$src" "$obj" $fragments
	step "Linux $version ($variant)" "$enter" sh $inner/scripts/kernel-build.sh kernel "$src" "$obj" "$1"
}

build_module() {
	stage
	# shellcheck disable=SC2086
	step "configure ($variant)" "$enter" sh $inner/scripts/kernel-build.sh config "$src" "$obj" $fragments
	step "module ($variant)" "$enter" sh $inner/scripts/kernel-build.sh module "$src" "$obj" "$1"
}

build_every_test() {
	stage
	step "every KVM selftest" "$enter" sh $inner/scripts/kernel-build.sh every "$src" "/cache/$linux/main" "$1"
}

build_tests() {
	stage
	step 'KVM selftests' "$enter" sh $inner/scripts/kernel-build.sh selftests "$src" "/cache/$linux/main" "$1"
}

if [ "$variant" = kconfig ]; then
	programs=$linux/kconfig/scripts/kconfig
	unpacked
	[ -x "$CACHE/$programs/mconf" ] ||
		step "menu of Linux" "$enter" make -s -C "$src" O="/cache/$linux/kconfig" build_config build_menuconfig
	echo "/cache/$programs" >"$BUILD/kconfig"
	exit
fi
if [ "$variant" = source ]; then
	stage
	echo "$src" >"$BUILD/linux-source"
	echo "$src" >"$BUILD/linux-source-$version"
	echo "$version" >"$BUILD/linux-version"
	exit
fi

# The kernel with a configuration of Debian, or that of make kernel; packages of it, mvpmu and perf.
build_packages() {
	stage
	objects=$obj
	if [ "$base" = small ]; then
		# shellcheck disable=SC2086
		step "configure ($base)" "$enter" sh $inner/scripts/kernel-build.sh config "$src" "$obj" $fragments
	else
		objects=/cache/$linux/$base
		step "configure ($base)" "$enter" sh $inner/scripts/deb-build.sh config "$src" "$objects" \
			"/cache/source/$config_package" "$flavour" "$base"
	fi
	step "Linux $version ($base)" "$enter" sh $inner/scripts/kernel-build.sh kernel "$src" "$objects" "$1/built"
	release=$(cat "$work/built/release")
	rm -rf "$work/built"
	step 'packages of Linux' "$enter" sh $inner/scripts/deb-build.sh kernel "$src" "$objects" "$1"
	step "perf of Linux $version" "$enter" sh $inner/scripts/deb-build.sh perf "$src" "/cache/$linux/perf"
	step 'packages of mvpmu' "$enter" sh $inner/scripts/deb-build.sh host "$release" "/cache/$linux/perf" "$1"
}

if [ -n "$packages" ]; then
	config_package=
	[ "$base" = small ] || config_package "$version"
	product "$packages" "$({
		echo "$linux_sum $base $config_package"
		sum_of tools/testing/mvpmu/deb/mvpmu tools/testing/mvpmu/deb/kernel.config \
			tools/testing/mvpmu/scripts/deb-build.sh tools/kvm/mvpmu/man tools/kvm/mvpmu/Cargo.toml \
			build/tools/mvpmu-top build/tools/mvpmu-check build/tools/mvpmu-report
	} | sha256sum | cut -c1-12)" build_packages
	exit
fi
if [ "$variant" = static-branches ]; then
	product "$variant" "$linux_sum" build_module
	exit
fi
if [ "$variant" = every-selftest ]; then
	product "$variant" "$linux_sum" build_every_test
	exit
fi
product "$variant" "$linux_sum" build_linux
[ "$variant" != main ] || product selftests "$tests_sum" build_tests
