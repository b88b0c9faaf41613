# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# The host's apt on a directory tree of our own, for trixie and its backports. Where to download
# from is the host's business: its own mirror when it is a Debian, MVPMU_MIRROR when that is set,
# else what the package debootstrap of the host's distribution names.

APT=$CACHE/apt
SUITE=trixie

for tool in apt-get apt-config dpkg dpkg-deb tar flock unshare setpriv sha256sum; do
	command -v $tool >/dev/null || die "$tool is missing: a Debian or Ubuntu machine has it"
done
[ "$(dpkg --print-architecture)" = amd64 ] || die "only amd64 machines can run this"

apt_own() {
	APT_CONFIG=$APT/apt.conf DEBIAN_FRONTEND=noninteractive \
		apt-get -q -t "$SUITE-backports" "$@"
}

# The host's own sources, with lists of our own: works as an ordinary user, and when the host has
# never run `apt-get update`.
apt_host() {
	mkdir -p "$APT/host/lists/partial" "$APT/host/archives/partial"
	apt-get -q -o Dir::State::lists="$APT/host/lists" -o Dir::Cache="$APT/host" \
		-o APT::Sandbox::User= -o APT::Update::Post-Invoke::= \
		-o APT::Update::Post-Invoke-Success::= "$@"
}

# host_package NAME: unpacks a package of the host's distribution into $APT/host/NAME.
host_package() {
	rm -rf "$APT/host/$1"
	mkdir -p "$APT/host/$1"
	(
		cd "$APT/host/$1" || exit
		apt_host download "$1" || { apt_host update && apt_host download "$1"; }
		dpkg-deb -x ./*.deb .
	)
}

# Places that may carry Debian, likeliest first.
mirrors() {
	if [ -n "${MVPMU_MIRROR:-}" ]; then
		echo "$MVPMU_MIRROR"
		return
	fi
	id=$(sed -n 's/^ID=//p' /etc/os-release)
	if [ "$id" = debian ]; then
		apt-get --print-uris update | sed -n "s|^'\(.*\)/dists/[^ ]*/InRelease'.*|\1|p" |
			grep -v security | awk '{ print (/\/debian\/?$/ ? 0 : 1), NR, $0 }' |
			sort -n | cut -d' ' -f3- | awk '!seen[$0]++'
	fi
	host_package debootstrap >&2 || return 0
	(
		cd "$APT/host/debootstrap" || exit
		for f in usr/sbin/debootstrap usr/share/debootstrap/scripts/sid usr/share/doc/debootstrap/README*; do
			case $f in
			*.gz) zcat "$f" ;;
			*) cat "$f" ;;
			esac 2>/dev/null
		done | grep -oE 'https?://[^ "'\'']+/debian\b' | awk '!seen[$0]++'
	)
}

apt_configure() {
	cat >"$APT/sources.list" <<-EOF
		deb [signed-by=$2] $1 $SUITE main
		deb [signed-by=$2] $1 $SUITE-backports main
	EOF
	{
		# The host's proxies, time-outs and the like, and nothing else of its configuration.
		apt-config dump Acquire | grep -vE '^Acquire::(IndexTargets|Languages|Changelogs|CompressionTypes|cdrom)' |
			grep -v ' "";$' || :
		cat <<-EOF
			APT::Architecture "amd64";
			APT::Architectures { "amd64"; };
			APT::Install-Recommends "false";
			APT::Sandbox::User "";
			Acquire::Languages "none";
			Dir::State "$APT";
			Dir::State::status "$APT/status";
			Dir::State::lists "$APT/lists";
			Dir::Cache "$APT";
			Dir::Cache::archives "$APT/archives";
			Dir::Log "$APT/log";
			Dir::Etc::sourcelist "$APT/sources.list";
			Dir::Etc::sourceparts "-";
			Dir::Etc::preferences "-";
			Dir::Etc::preferencesparts "-";
			Dir::Etc::main "-";
			Dir::Etc::parts "-";
		EOF
	} >"$APT/apt.conf"
}

apt_update() {
	own=$APT/keyring/usr/share/keyrings/debian-archive-keyring.gpg
	list=$(mirrors)
	for mirror in $list; do
		for keyring in /usr/share/keyrings/debian-archive-keyring.gpg "$own"; do
			if [ "$keyring" = "$own" ] && [ ! -f "$own" ]; then
				host_package debian-archive-keyring || continue
				rm -rf "$APT/keyring"
				mv "$APT/host/debian-archive-keyring" "$APT/keyring"
			fi
			[ -f "$keyring" ] || continue
			apt_configure "${mirror%/}" "$keyring"
			apt_own update -o APT::Update::Error-Mode=any && return
		done
	done
	echo "No mirror of Debian $SUITE can be reached: set MVPMU_MIRROR to the address of one."
	return 1
}

apt_prepare() {
	mkdir -p "$APT/lists/partial" "$APT/archives/partial" "$APT/log"
	: >"$APT/status"
	step 'package lists' apt_update
}
