# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# Where the Linux source comes from: the packages linux-source-<version> of the backports; and Debian's
# configurations of it: linux-config-<version>.

# shellcheck source=tools/testing/mvpmu/scripts/apt.sh
. "$SCRIPTS/apt.sh"

VERSIONS='7.3 7.2'

in_cache() {
	package=$(cd "$CACHE/source" && find . -name "linux-source-$1_*.deb" -printf '%P\n' | sort -V | tail -n 1)
	[ -n "$package" ]
}

fetch_source() {
	mkdir -p "$CACHE/source/part"
	(cd "$CACHE/source/part" && apt_own download "linux-source-$1" && mv ./*.deb ..)
	rm -rf "$CACHE/source/part"
}

# source_package VERSION: sets version, package (a file in $CACHE/source) and package_version. When
# the archive no longer has VERSION, another one is taken.
source_package() {
	version=
	mkdir -p "$CACHE/source"
	if ! in_cache "$1"; then
		apt_prepare
		for v in "$1" $VERSIONS; do
			if APT_CONFIG=$APT/apt.conf apt-cache show "linux-source-$v" >/dev/null 2>&1; then
				version=$v
				break
			fi
		done
		[ -n "$version" ] || die "the archive has none of linux-source-$1 and $VERSIONS"
		[ "$version" = "$1" ] ||
			echo "the archive has no linux-source-$1: taking linux-source-$version"
		in_cache "$version" || step "download Linux $version" fetch_source "$version"
		in_cache "$version"
	fi
	version=${version:-$1}
	package_version=${package#*_}
	package_version=${package_version%_*}
	# A `~` or `:` in a path is asking for trouble.
	package_version=$(printf %s "$package_version" | tr -c 'A-Za-z0-9.\n' -)
}

config_in_cache() {
	config_package=$(cd "$CACHE/source" && find . -name "linux-config-$1_*.deb" -printf '%P\n' | sort -V | tail -n 1)
	[ -n "$config_package" ]
}

# That of the source, or what the archive has now.
fetch_config() {
	mkdir -p "$CACHE/source/part"
	of_source=${package#*_}
	(
		cd "$CACHE/source/part" || exit
		apt_own download "linux-config-$1=${of_source%_*}" || apt_own download "linux-config-$1"
		mv ./*.deb ..
	)
	rm -rf "$CACHE/source/part"
}

# config_package VERSION: sets config_package (a file in $CACHE/source).
config_package() {
	config_in_cache "$1" && return
	apt_prepare
	step "download configurations" fetch_config "$1"
	config_in_cache "$1"
}
