#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# checkout-test.sh [--long]: runs commands that the documentation shows, those of `mvpmu-run shown`, as they
# are shown there, in a fresh checkout of what is in this one, beside what they name: ../linux, ../bzImage,
# ../initrd.img. When all is built; TAP to build/shown/checkout.tap. --long: also what takes an hour.
set -eu
# shellcheck source=tools/testing/mvpmu/scripts/lib.sh
. "$(dirname -- "$0")/lib.sh"
# What make hands down. The version of Linux that is built stays.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES VARIANT MACHINE CPU PMU CONFIG KCONFIG_CONFIG KDIR KERNEL_IMAGE \
	MODULES INITRD COMMAND APPEND SCENARIO COUNTERS HOST GROUP
cd "$TOP"
enter=$SCRIPTS/enter.sh

shown=$BUILD/shown
rm -rf "$shown"
mkdir -p "$shown"
work=$(mktemp -d "$CACHE/checkout-XXXXXX")
here=$work/mvpmu
mkdir "$here"
# No command may take a repository above for the one it works on.
export GIT_CEILING_DIRECTORIES="$work" MVPMU_CACHE="$CACHE" GIT_CONFIG_GLOBAL="$work/gitconfig"
git config --global user.name 'A Tester'
git config --global user.email 'tester@example.org'

# What git has, or would have; a file that is deleted is in its list, too.
git ls-files -z --cached --others --exclude-standard |
	tar --create --null --files-from=- --ignore-failed-read --warning=no-failed-read |
	tar --extract --directory "$here"
[ ! -f .config ] || cp .config "$here"

# A tree of Linux with a kernel that was built in it, and an initial root file system that ends the machine.
(
	# shellcheck source=tools/testing/mvpmu/scripts/commits.sh
	. "$SCRIPTS/commits.sh"
	# shellcheck source=tools/testing/mvpmu/scripts/stock.sh
	. "$SCRIPTS/stock.sh"
	stock "${KERNEL:-7.3}" "$work/linux"
)
cp build/main/bzImage "$work/bzImage"
mkdir -p "$work/linux/arch/x86/boot"
cp build/main/bzImage "$work/linux/arch/x86/boot"
cp build/main/modules/*.ko "$work/linux"
"$enter" sh -c '
	mkdir -p /tmp/root/bin /tmp/root/dev
	cd /tmp/root
	cp /usr/bin/busybox bin
	printf "%s\n" "#!/bin/busybox sh" "/bin/busybox mount -t devtmpfs devtmpfs /dev" \
		"echo it has run >/dev/console" "/bin/busybox poweroff -f" >init
	chmod +x init
	find . | cpio --quiet -o -H newc >/mvpmu/build/shown/initrd.img'
mv "$shown/initrd.img" "$work"

# by_person COMMAND: the same by somebody who ends the shell on the machine when it is there.
by_person() {
	rm -f "$work/keys"
	mkfifo "$work/keys"
	sh -c "$1" <"$work/keys" >"$log" 2>&1 &
	shell=$!
	exec 3>"$work/keys"
	until grep -q '^/ # ' "$log" || ! kill -0 $shell 2>/dev/null; do
		sleep 1
	done
	echo exit >&3
	exec 3>&-
	wait $shell
}

# does COMMAND: it succeeds in the checkout, and has done what it is for.
does() (
	cd "$here" || exit
	case $1 in
	*' INITRD='*)
		sh -c "$1" >"$log" 2>&1 </dev/null && grep -q 'it has run' "$log"
		;;
	*' COMMAND='*)
		sh -c "$1" >"$log" 2>&1 </dev/null && grep -q "^Linux .*$(cat "$BUILD/main/release")" "$log"
		;;
	'make shell'*)
		by_person "$1" && grep -q 'mvpmu test machine' "$log"
		;;
	'make apply'*)
		sh -c "$1" >"$log" 2>&1 </dev/null && [ -f "$work/linux/drivers/virt/mvpmu/mvpmu_main.rs" ]
		;;
	*)
		sh -c "$1" >"$log" 2>&1 </dev/null
		;;
	esac
)

"$enter" build/tools/mvpmu-run shown "$@" >"$shown/commands"
number=0
while read -r command <&4; do
	number=$((number + 1))
	log=$shown/$number.log
	: >"$log"
	begin=$(date +%s)
	result=ok
	does "$command" || result='not ok'
	printf '%-64s %4d s  %s\n' "$command" $(($(date +%s) - begin)) "$result"
	[ "$result" = ok ] || tail -n 20 "$log" | sed 's/^/# /' >>"$shown/checkout.tap"
	echo "$result $number $command" >>"$shown/checkout.tap"
done 4<"$shown/commands"
echo "1..$number" >>"$shown/checkout.tap"
