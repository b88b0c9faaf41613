#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# options.sh [FILE]: what .config (or FILE) says, as words for make: KERNEL=7.2 VARIANT=debug
# CONFIG=cloud. One line of complaint when there is something in it that Kconfig does not know.
#
# options.sh --own FILE: its lines on mvpmu, for the configuration of Linux.
set -eu
cd "$(dirname -- "$0")/../../../.."
if [ "$1" = --own ]; then
	sed -n -E '/^(# )?CONFIG_MVPMU(_[A-Z0-9_]*)?[= ]/p' "$2"
	exit
fi

# shellcheck disable=SC2046
exec awk -v config="$1" '
	function complain(text) {
		print "mvpmu: " config ":" FNR ": " text ": make menuconfig"
		failed = 1
		exit 1
	}
	# The options there are.
	FILENAME != config {
		if ($1 == "config")
			known[$2] = 1
		next
	}
	/^#/ || /^$/ { next }
	!/^CONFIG_[A-Z0-9_]+=/ { complain("'\''" $0 "'\'' is no line of a configuration") }
	{
		name = $0
		sub(/=.*/, "", name)
		sub(/^CONFIG_/, "", name)
		value = $0
		sub(/^[^=]*=/, "", value)
		if (!(name in known))
			complain("there is no option CONFIG_" name)
		if (value !~ /^[ymn]$/)
			complain("CONFIG_" name " cannot be " value)
		if (name ~ /^LINUX_/ && value == "y") {
			sub(/^LINUX_/, "", name)
			sub(/_/, ".", name)
			if (linux)
				complain("both Linux " linux " and " name)
			linux = name
		} else if (name ~ /^VARIANT_/ && value == "y") {
			sub(/^VARIANT_/, "", name)
			if (variant)
				complain("more than one variant")
			variant = tolower(name)
		} else if (name ~ /^DEB_/ && value == "y") {
			sub(/^DEB_/, "", name)
			if (base)
				complain("more than one configuration of packages")
			base = tolower(name)
		}
	}
	END {
		if (failed)
			exit 1
		if (!linux || !variant) {
			print "mvpmu: " config " names no " (linux ? "variant" : "version of Linux") ": make menuconfig"
			exit 1
		}
		print "KERNEL=" linux, "VARIANT=" variant (base ? " CONFIG=" base : "")
	}' $(find Kconfig drivers/virt/mvpmu/Kconfig) "$1"
