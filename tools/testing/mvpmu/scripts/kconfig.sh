#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# kconfig.sh menuconfig|defconfig|olddefconfig: writes the options of the build, of Kconfig at the top,
# to KCONFIG_CONFIG (a file in the checkout, .config), with Linux's programs.
set -eu

# kconfig.sh --inside PROGRAMS TARGET FILE: the same, inside the root file system.
if [ "${1:-}" = --inside ]; then
	cd /mvpmu
	case $3 in
	menuconfig) set -- "$2/mconf" "$4" ;;
	defconfig) set -- "$2/conf" "$4" -s --alldefconfig ;;
	olddefconfig) set -- "$2/conf" "$4" -s --olddefconfig ;;
	esac
	program=$1
	export KCONFIG_CONFIG="$2" srctree=. KCONFIG_WERROR=1
	# These belong to a kernel's build.
	export KCONFIG_AUTOCONFIG=/tmp/auto.conf KCONFIG_AUTOHEADER=/tmp/autoconf.h KCONFIG_RUSTCCFG=/tmp/rustc_cfg
	shift 2
	exec "$program" "$@" Kconfig
fi

# shellcheck source=tools/testing/mvpmu/scripts/lib.sh
. "$(dirname -- "$0")/lib.sh"

"$SCRIPTS/kernel.sh" kconfig
exec "$SCRIPTS/enter.sh" sh /mvpmu/tools/testing/mvpmu/scripts/kconfig.sh --inside \
	"$(cat "$BUILD/kconfig")" "$1" "${KCONFIG_CONFIG:-.config}"
