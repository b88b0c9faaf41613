#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# deb-build.sh STEP ...: the steps of `make deb`, inside the root file system.
#   config SRC OBJ PACKAGE FLAVOUR NAME  Debian's configuration in the package linux-config, and ours
#   kernel SRC OBJ DEST           what is built in OBJ as packages, by Linux's own bindeb-pkg
#   perf SRC OBJ                  perf of that Linux, in OBJ
#   host RELEASE PERF DEST        the packages mvpmu and mvpmu-perf, by debhelper; perf from PERF
# The same input gives the same packages: there is one time, and nothing of who builds where.
set -eu
step=$1
shift
here=/mvpmu/tools/testing/mvpmu
# Those of kernel-build.sh: what is built is not built again.
export KBUILD_BUILD_TIMESTAMP='2026-01-01' KBUILD_BUILD_VERSION=1
export KBUILD_BUILD_USER=mvpmu KBUILD_BUILD_HOST=mvpmu LOCALVERSION=
SOURCE_DATE_EPOCH=$(date -u -d "$KBUILD_BUILD_TIMESTAMP" +%s)
export SOURCE_DATE_EPOCH
# Most of the time would go into xz.
export DEB_VENDOR=Debian DPKG_DEB_COMPRESSOR_TYPE=zstd DPKG_DEB_COMPRESSOR_LEVEL=9
# Debian wants an address; there is none.
export DEBFULLNAME='The mvpmu developers' DEBEMAIL=mvpmu@mvpmu.invalid

# version RELEASE: that of the packages. What is behind the last hyphen becomes Linux's build number.
version() {
	own=$(sed -n 's/^version = "\(.*\)"/\1/p' /mvpmu/tools/kvm/mvpmu/Cargo.toml)
	echo "${1%%-*}+mvpmu$own-$KBUILD_BUILD_VERSION"
}

# without_database: dpkg's programs look at what is installed; the root file system has no list of it.
without_database() {
	database=$(mktemp -d)
	: >"$database/status"
}

# Every line of ours must take effect.
config() {
	src=$1
	obj=$2
	mkdir -p "$obj"
	{
		dpkg-deb --fsys-tarfile "$3" | tar -xO --wildcards "./usr/src/linux-config-*/config.amd64_none_$4.xz" | xz -dc
		cat "$here/kernel/mvpmu.config" "$here/deb/kernel.config"
		echo "CONFIG_LOCALVERSION=\"-mvpmu-$5\""
	} >"$obj/.config.new"
	# make rebuilds what the time of the file says.
	if ! cmp -s "$obj/.config.new" "$obj/.config.from"; then
		cp "$obj/.config.new" "$obj/.config"
		make -s -C "$src" O="$obj" olddefconfig 2>&1 | grep -v 'warning: override' || :
		cp "$obj/.config.new" "$obj/.config.from"
	fi
	lost=$(cat "$here/kernel/mvpmu.config" "$here/deb/kernel.config" | while read -r line; do
		case $line in
		CONFIG_*) grep -qxF "$line" "$obj/.config" || echo "$line" ;;
		'# CONFIG_'*' is not set')
			name=${line#\# }
			! grep -q "^${name% is not set}=" "$obj/.config" || echo "$line"
			;;
		esac
	done)
	[ -z "$lost" ] || {
		echo "These lines have no effect on Debian's configuration (a dependency is missing):"
		echo "$lost"
		exit 1
	}
}

kernel() {
	src=$1
	obj=$2
	release=$(cat "$obj/include/config/kernel.release")
	rm -f "$obj"/../linux-*.deb "$obj"/../linux-*.buildinfo "$obj"/../linux-*.changes
	without_database
	make -C "$src" O="$obj" bindeb-pkg KDEB_PKGVERSION="$(version "$release")" \
		KDEB_SOURCENAME=linux-mvpmu KDEB_CHANGELOG_DIST=trixie \
		DPKG_FLAGS="--admindir=$database --no-check-builddeps --hook-init='sh $here/scripts/deb-build.sh control'"
	mv "$obj"/../linux-*.deb "$3/"
	rm -rf "$obj"/../linux-*.buildinfo "$obj"/../linux-*.changes "$obj/debian"
	echo "$release" >"$3/release"
}

# What mkdebian has written, before it is used: a time that is always the same, what the packages need,
# that the image has the module; and no headers of Linux for the C library, which Debian has.
control() {
	sed -i -e "s/^\( -- .*>\)  .*/\1  $(date -u -R -d "@$SOURCE_DATE_EPOCH")/" \
		-e 's/Custom built Linux kernel/Linux as in Debian, with mvpmu and its series/' debian/changelog
	awk -v RS= -v ORS='\n\n' '
		/^Package: linux-libc-dev\n/ { next }
		/^Package: linux-image-[^\n]*\n/ && !/^Package: [^\n]*-dbg\n/ {
			sub(/\nDescription:/, "\nDepends: kmod, linux-base, initramfs-tools | linux-initramfs-tool" \
				"\nProvides: mvpmu-module (= ${binary:Version})&")
		}
		{ print }' debian/control >debian/control.new
	mv debian/control.new debian/control
}

# What Debian's perf has, but for scripts in Python and Perl, and what needs a compiler for BPF.
perf() {
	obj=$2
	mkdir -p "$obj"
	cd "$1/tools/perf"
	set -- O="$obj" prefix=/usr perfexecdir=lib/perf-core WERROR=0 BUILD_BPF_SKEL=0 \
		PYTHON=python3 PYTHON_CONFIG=true NO_LIBPYTHON=1 NO_LIBPERL=1 NO_LIBLLVM=1 NO_JVMTI=1 \
		NO_LIBBABELTRACE=1 NO_LIBUNWIND=1
	make -j"$(nproc)" "$@"
	rm -rf "$obj/installed"
	make "$@" DESTDIR="$obj/installed" install-bin
	strip "$obj/installed/usr/bin/perf"
}

host() {
	release=$1
	perf=$2
	dest=$3
	without_database
	tree=$(mktemp -d)
	cp -r $here/deb/mvpmu "$tree/"
	cd "$tree/mvpmu"
	cp /mvpmu/build/tools/mvpmu-top /mvpmu/build/tools/mvpmu-check /mvpmu/build/tools/mvpmu-report \
		/mvpmu/tools/kvm/mvpmu/man/*.1 .
	cp -r "$perf/installed" perf
	cat >debian/changelog <<-EOF
		mvpmu ($(version "$release")) trixie; urgency=low

		  * For Linux ${release%%-*}.

		 -- $DEBFULLNAME <$DEBEMAIL>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
	EOF
	dpkg-buildpackage --admindir="$database" --build=binary --unsigned-changes --no-check-builddeps --no-pre-clean
	mv "$tree"/mvpmu_*.deb "$tree"/mvpmu-perf_*.deb "$dest/"
	rm -rf "$tree"
}

$step "$@"
