#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# enter.sh [--rootfs DIR] CMD...: runs CMD in the root file system, with the checkout at /mvpmu and
# the cache at /cache. Everything CMD has started ends with it, or with the caller.
set -eu
# An ordinary user may not have the directories of chroot and mount in the path.
PATH=$PATH:/usr/sbin:/sbin
SCRIPTS=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
TOP=$(CDPATH='' cd -- "$SCRIPTS/../../../.." && pwd)
CACHE=${MVPMU_CACHE:-${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}/.cache/mvpmu}

# Inside the new namespaces: assemble the view, then become the first process of the new root.
if [ "${1:-}" = --inside ]; then
	root=$2
	shift 2
	over() { # over FILE TARGET: show a file of the host, when it has one
		[ ! -s "$1" ] || mount --bind "$(readlink -f "$1")" "$root/$2"
	}
	mount --rbind /dev "$root/dev"
	mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
	mount -t tmpfs tmpfs "$root/tmp"
	mount --bind "$TOP" "$root/mvpmu"
	mount --bind "$CACHE" "$root/cache"
	over /etc/resolv.conf etc/resolv.conf
	over /etc/hosts etc/hosts
	over /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/ca-certificates.crt
	over /etc/pip.conf etc/pip.conf
	# Of the host's cargo configuration: where crates come from, and nothing that steers the build.
	for f in "${CARGO_HOME:-${HOME:-/root}/.cargo}/config.toml" "${HOME:-/root}/.cargo/config"; do
		[ -f "$f" ] || continue
		awk '/^[ \t]*\[/ { on = /^[ \t]*\[+(source|registry|registries|http|net)[].]/ } on' "$f" \
			>"$root/tmp/cargo-config"
		mount --bind "$root/tmp/cargo-config" "$root/.cargo/config.toml"
		break
	done
	# Of the environment: proxies, registries, and what is ours.
	env=$(env | sed -n -E 's/^((https?|HTTPS?|no|NO|all|ALL|ftp)_(proxy|PROXY)|CARGO_(HTTP|NET|REGISTRY|REGISTRIES|SOURCE)_[A-Z0-9_]*|PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|PROXY|DEFAULT_TIMEOUT|RETRIES)|MVPMU_[A-Z_]*|TERM|COLUMNS|LINES)=.*/\1/p')
	set -- /bin/sh /mvpmu/tools/testing/mvpmu/scripts/first.sh "$@"
	for name in $env; do
		[ "$name" != MVPMU_CACHE ] || continue
		eval "set -- \"\$name=\$$name\" \"\$@\""
	done
	# From here on nothing of the host's directories is reachable but what was mounted.
	exec chroot "$root" /usr/bin/env -i HOME=/tmp USER=root LANG=C.UTF-8 \
		PATH=/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/cache/cargo \
		CARGO_TARGET_DIR=/mvpmu/build/target PIP_CACHE_DIR=/cache/pip \
		PYTHONDONTWRITEBYTECODE=1 MVPMU_CACHE=/cache "$@"
fi

# MVPMU_ROOTFS: another one than that of the checkout.
root=${MVPMU_ROOTFS:-$TOP/build/rootfs}
if [ "${1:-}" = --rootfs ]; then
	root=$2
	shift 2
fi
root=$(readlink -f "$root")
[ -d "$root" ] || { echo "mvpmu: no root file system yet: run make" >&2; exit 1; }

user=
if ! unshare --mount true 2>/dev/null; then
	user="--user --map-root-user"
	# shellcheck disable=SC2086
	unshare $user --mount true 2>/dev/null || {
		echo "mvpmu: user namespaces are not allowed here: run as root, or have the administrator allow them (sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0)" >&2
		exit 1
	}
fi
mkdir -p "$CACHE/cargo"
export MVPMU_CACHE="$CACHE"
# shellcheck disable=SC2086
exec setpriv --pdeathsig KILL unshare $user --mount --pid --fork --kill-child \
	sh "$SCRIPTS/enter.sh" --inside "$root" "$@"
