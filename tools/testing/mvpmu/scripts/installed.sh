#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# installed.sh disk|memory DIRECTORY: a Debian that boots, with tests that its init starts in the end. Inside the
# root file system. For
#   disk    DIRECTORY/disk has a partition for EFI and the Debian, with another kernel, and our packages in
#           its /debs: the job install-debian installs them, and a boot loader
#   memory  they are installed, and DIRECTORY/vmlinuz, initrd are what apt has made of it; a second archive in
#           initrd has the Debian, for a machine without disks
set -eu
if [ "$1" != --inside ]; then
	exec unshare --mount --propagation unchanged sh "$0" --inside "$1" "$(readlink -f "$2")"
fi
kind=$2
directory=$3
export LC_ALL=C.UTF-8
cd /mvpmu
# shellcheck source=tools/testing/mvpmu/scripts/in-debian.sh
. tools/testing/mvpmu/scripts/in-debian.sh

new_debian "$directory/debian"
release=$(cat build/deb/release)
here=$root/usr/local/lib/mvpmu-test
mkdir -p "$here"
echo "$release" >"$here/release"
cp tools/testing/mvpmu/deb/installed/check tools/testing/mvpmu/initramfs/tap.sh build/tools/port \
	build/tools/kernel-log build/tools/counted build/selftests/mvpmu/guest_report "$here/"
cp tools/testing/mvpmu/deb/installed/mvpmu-test "$root/etc/init.d/"
in_debian update-rc.d mvpmu-test defaults

# That of the mutants, which does nothing of theirs unless it is told to, as another package might have
# brought it.
another_kernel() {
	other=$(cat build/mutants/release)
	[ "$other" != "$release" ]
	echo "$other" >"$here/other"
	cp build/mutants/bzImage "$root/boot/vmlinuz-$other"
	cp build/mutants/config "$root/boot/config-$other"
	mkdir -p "$root/lib/modules/$other"
	find build/mutants/modules -name '*.ko' ! -name 'mvpmu*' -exec cp {} "$root/lib/modules/$other/" \;
	: >"$root/lib/modules/$other/modules.order"
	: >"$root/lib/modules/$other/modules.builtin"
	in_debian depmod "$other"
	# They are not in the directories in which initramfs-tools looks for drivers.
	printf '%s\n' virtio_pci virtio_blk ext4 >"$root/etc/initramfs-tools/modules"
	in_debian update-initramfs -c -k "$other"
	: >"$root/etc/initramfs-tools/modules"
}

case $kind in
disk)
	another_kernel
	cat >"$root/etc/fstab" <<-'EOF'
		LABEL=debian / ext4 defaults 0 0
		LABEL=EFI /boot/efi vfat defaults 0 0
	EOF
	mkdir -p "$root/boot/efi"
	cat >"$root/etc/default/grub" <<-'EOF'
		GRUB_TIMEOUT=0
		GRUB_DEFAULT=saved
		GRUB_DISTRIBUTOR=Debian
		GRUB_TERMINAL=serial
		GRUB_CMDLINE_LINUX="console=ttyS0 no_timer_check tsc=reliable panic=-1"
	EOF
	leave_debian
	efi=64
	all=1024
	truncate -s ${all}M "$directory/disk"
	printf 'label: gpt\nstart=1MiB, size=%dMiB, type=uefi\ntype=linux\n' $efi | sfdisk -q "$directory/disk"
	mformat -i "$directory/disk@@1M" -v EFI -F -T $((efi * 2048)) -h 64 -s 32
	mke2fs -q -t ext4 -L debian -E offset=$(((efi + 1) * 1048576)) -d "$root" "$directory/disk" \
		$((all - efi - 2))M
	;;
memory)
	(cd "$root" && find debs -name '*.deb' -printf '/%p\n') >"$directory/debs"
	# shellcheck disable=SC2046
	apt install $(cat "$directory/debs")
	leave_debian
	cp "$root/boot/vmlinuz-$release" "$directory/vmlinuz"
	rm -r "$root/debs"
	mkdir -p "$directory/memory/scripts"
	cp tools/testing/mvpmu/deb/installed/memory "$directory/memory/scripts/"
	tar -C "$root" --numeric-owner -cf "$directory/memory/debian.tar" .
	(cd "$directory/memory" && find . | cpio -o -H newc --quiet) >"$directory/memory.cpio"
	# The kernel wants the beginning of an archive at a multiple of four.
	cp "$root/boot/initrd.img-$release" "$directory/initrd"
	truncate -s %4 "$directory/initrd"
	cat "$directory/memory.cpio" >>"$directory/initrd"
	rm -r "$directory/memory" "$directory/memory.cpio"
	;;
esac
rm -rf "$root"
