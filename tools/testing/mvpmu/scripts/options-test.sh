#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# options-test.sh DIRECTORY: tests of Kconfig at the top, .config, and what make takes from it. Inside
# the root file system; TAP to DIRECTORY/options.tap. DIRECTORY is in the checkout.
# Functions are run by test_that.
# shellcheck disable=SC2329
set -eu
TAP_DIRECTORY=$1
cd /mvpmu
scripts=tools/testing/mvpmu/scripts
programs=$(cat build/kconfig)
# shellcheck source=tools/testing/mvpmu/initramfs/tap.sh
. tools/testing/mvpmu/initramfs/tap.sh
begin_testing options
unset KERNEL VARIANT CONFIG MAKEFLAGS MAKELEVEL
config=$TAP_DIRECTORY/config

kconfig() {
	sh $scripts/kconfig.sh --inside "$programs" "$1" "$config"
}

# options [NAME=VALUE...]: what make takes from the configuration.
options() {
	# shellcheck disable=SC2016
	make -s "KCONFIG_CONFIG=$config" "$@" --eval='show:;@echo $(KERNEL) $(VARIANT) $(CONFIG)' show
}

# are VALUES [NAME=VALUE...]: those are the options.
are() {
	values=$1
	shift
	echo "$(options "$@") for $values"
	[ "$(options "$@")" = "$values" ]
}

# choose NAME OTHER: as somebody who edits the file.
choose() {
	sed -i "s/^# CONFIG_$1 is not set/CONFIG_$1=y/; s/^CONFIG_$2=y/# CONFIG_$2 is not set/" "$config"
}

# own: what goes into the configuration of Linux.
own() {
	"$scripts/options.sh" --own "$config" | diff - "$TAP_DIRECTORY/own"
}

# refused TEXT LINE: the same, with LINE at the end.
refused() {
	kconfig defconfig
	echo "$2" >>"$config"
	refused_as_it_is "$1"
}

# refused_as_it_is TEXT: make says so in one line with TEXT and the file, and does nothing.
refused_as_it_is() {
	if make "KCONFIG_CONFIG=$config" rootfs >"$TAP_DIRECTORY/said" 2>&1; then
		echo 'make has not failed'
		return 1
	fi
	cat "$TAP_DIRECTORY/said"
	[ "$(wc -l <"$TAP_DIRECTORY/said")" = 1 ] && grep -F "$1" "$TAP_DIRECTORY/said" &&
		grep -F "$config" "$TAP_DIRECTORY/said"
}

rm -f "$config"
without=$(options)
test_that 'make defconfig writes a configuration' kconfig defconfig
test_that 'it is the same as none' are "$without"
printf '%s\n' CONFIG_MVPMU=m '# CONFIG_MVPMU_KUNIT_TEST is not set' >"$TAP_DIRECTORY/own"
test_that 'the options of mvpmu are in it' own
choose LINUX_7_2 LINUX_7_3
choose VARIANT_DEBUG VARIANT_MAIN
choose DEB_CLOUD DEB_AMD64
test_that 'make olddefconfig completes what somebody has changed' kconfig olddefconfig
test_that 'make takes its choices from it' are '7.2 debug cloud'
printf '%s\n' CONFIG_MVPMU=m CONFIG_MVPMU_KUNIT_TEST=y >"$TAP_DIRECTORY/own"
test_that 'the debug kernel has the KUnit tests' own
test_that 'the command line overrides it' are '7.3 main small' KERNEL=7.3 VARIANT=main CONFIG=small

test_that 'a line that is none is refused' refused 'is no line' 'Linux 7.2'
test_that 'an option that is not there is refused' refused 'CONFIG_LINUX_6_1' CONFIG_LINUX_6_1=y
test_that 'a value that is none is refused' refused 'CONFIG_MVPMU cannot be x' CONFIG_MVPMU=x
test_that 'two versions are refused' refused 'both Linux 7.3 and 7.2' CONFIG_LINUX_7_2=y
test_that 'make defconfig mends it' kconfig defconfig
sed -i /LINUX/d "$config"
test_that 'no version is refused' refused_as_it_is 'names no version'

# The menu, on a terminal: what it shows, and what it saves when Linux 7.2 is chosen.
menu() {
	python3 - "$programs" "$config" <<-'EOF'
		import fcntl, os, pty, re, select, struct, sys, termios

		pid, terminal = pty.fork()
		if pid == 0:
		    os.environ["TERM"] = "linux"
		    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
		    os.execvp("sh", ["sh", "tools/testing/mvpmu/scripts/kconfig.sh", "--inside",
		                     sys.argv[1], "menuconfig", sys.argv[2]])

		def until(*texts):
		    """Reads until all of them were shown. Between the letters are colours."""
		    seen = ""
		    while True:
		        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\)0|\x0f", "", seen)
		        if all(text in plain for text in texts):
		            return
		        more = b""
		        if select.select([terminal], [], [], 60)[0]:
		            try:
		                more = os.read(terminal, 4096)
		            except OSError:
		                pass
		        if not more:
		            sys.exit(f"not {texts} in {plain}")
		        seen += more.decode(errors="replace")

		def types(keys):
		    os.write(terminal, keys.encode())

		until("Version of Linux", "Mediated PMU for KVM guests")
		types("\r")
		until("7.2")
		types("\x1b[B ")
		types("\x1b\x1b")
		until("save your new configuration")
		types("\r")
		_, status = os.waitpid(pid, 0)
		sys.exit(os.waitstatus_to_exitcode(status))
	EOF
}

kconfig defconfig
test_that 'make menuconfig shows the options, and saves what is chosen' menu
test_that 'make takes it from there' are '7.2 main amd64'
test_that 'the checkout has got nothing but the file' absent include/config
done_testing
