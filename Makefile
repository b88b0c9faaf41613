# SPDX-License-Identifier: GPL-2.0
#
# mvpmu: builds and runs everything in a Debian root file system of its own.
# Needs a Debian or Ubuntu machine (amd64) with git and make; root is not needed.

scripts := tools/testing/mvpmu/scripts
run := $(scripts)/enter.sh build/tools/mvpmu-run

# The versions of Linux that there is a series for.
versions := $(notdir $(wildcard patches/[0-9]*))
comma := ,
space := $(subst ,, )

# What .config says, if it is there; `make menuconfig` writes it, and the command line overrides it.
KCONFIG_CONFIG ?= .config
ifneq ($(wildcard $(KCONFIG_CONFIG)),)
options := $(shell $(scripts)/options.sh $(KCONFIG_CONFIG))
ifeq ($(filter mvpmu:,$(options)),)
configured := $(options)
else ifneq ($(filter-out %config clean help apply unapply,$(MAKECMDGOALS)),)
$(error $(options))
endif
endif
# Selects the version of the kernel: KERNEL=7.2
KERNEL ?= $(or $(patsubst KERNEL=%,%,$(filter KERNEL=%,$(configured))),7.3)
# What tests boot in its debug variant, so that both versions are built and run.
second := $(firstword $(filter-out $(KERNEL),$(versions)) $(KERNEL))
# main, or debug: the kernel with lockdep and assertions
VARIANT ?= $(or $(patsubst VARIANT=%,%,$(filter VARIANT=%,$(configured))),main)
# amd or intel, for tests also all; without it: demo and shell amd, tests all
MACHINE ?=
# skylake, icelake, sapphire-rapids, zen4, zen5: what CPU the test machine is. Without it the two
# machines are sapphire-rapids and zen4.
CPU ?=
# on, off, old: the PMU of the test machine
PMU ?= on
# small, cloud or amd64, for make deb: Debian's configurations, and that of make kernel
CONFIG ?= $(or $(patsubst CONFIG=%,%,$(filter CONFIG=%,$(configured))),amd64)
# The same for make image, which takes small unless the command line says otherwise.
image_config := $(if $(filter command environment,$(origin CONFIG)),$(CONFIG),small)
# For make apply and unapply: somebody's tree of Linux.
KDIR ?=
# For make shell: what to boot in place of what is built here, and a command in place of the shell.
KERNEL_IMAGE ?=
MODULES ?=
INITRD ?=
COMMAND ?=
APPEND ?=
# For make listing: why the guest exits, its counters, what is on the host.
SCENARIO ?= io
COUNTERS ?= 100
HOST ?= none
# For make fuzz and make calls.
SEED ?= 1
PROGRAMS ?= 100000
export KERNEL VARIANT CONFIG KCONFIG_CONFIG KDIR KERNEL_IMAGE MODULES INITRD

# For the shell.
quoted = '$(subst ','\'',$(1))'
debug := $(if $(filter debug,$(VARIANT)),--debug-kernel)

# The machine, if it is given, and the CPU.
what := $(MACHINE:%=--machine %) $(CPU:%=--cpu %)
needs_bochs := $(if $(filter intel,$(MACHINE))$(filter-out zen%,$(CPU)),bochs)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-long bench listing fuzz calls sweep kernel module shell apply unapply patches menuconfig \
	defconfig olddefconfig clean rootfs tools debug-kernel bochs libipt deb image groups

help:
	@echo 'make demo     boot the test machine, load mvpmu.ko, let guests count; report in build/demo'
	@echo 'make test     all tests; ends with the number of passed, failed and skipped ones'
	@echo 'make test-long  the same and what takes hours: sweeps of all that switches, late PMIs, what firmware left'
	@echo 'make groups   the names of the groups of tests, for GROUP'
	@echo 'make bench    what a VM exit and sampling cost with each provider; numbers, tables, picture in build/bench'
	@echo 'make listing  whose instructions a VM exit takes, with KVM'"'"'s C code and mvpmu, by function'
	@echo 'make fuzz     random programs, the same in a guest and on the machine, to the first difference'
	@echo 'make calls    random calls to KVM'"'"'s PMU and to perf, to the first after which something is wrong'
	@echo 'make sweep    an interrupt at each instruction of the host kernel in a short run; hours'
	@echo '              (MACHINE=intel|amd; amd: only in what switches the PMU)'
	@echo 'make kernel   kernel, modules and selftests, in build/main and build/selftests'
	@echo 'make module   mvpmu.ko, in build'
	@echo 'make shell    a root shell on the test machine, with the module at hand; COMMAND=TEXT: that only'
	@echo 'make shell KERNEL_IMAGE=FILE  the same with a kernel of yours: a bzImage, or the tree it was built in'
	@echo 'make apply KDIR=TREE    the series and our files into a tree of Linux $(subst $(space),$(comma) ,$(versions)):'
	@echo '              commits on its branch, or, if it is no git repository, files'
	@echo 'make unapply KDIR=TREE  out of it again'
	@echo 'make deb      Debian packages of the kernel, its headers and mvpmu, in build/deb; with Debian'"'"'s'
	@echo '              configuration the kernel takes an hour or hours'
	@echo 'make image    build/image/mvpmu.efi: to be booted by UEFI from a stick; surveys the machine, leaves a report'
	@echo 'make patches  the series as mails, in build/patches'
	@echo 'make menuconfig  asks what is to be built, and writes .config; make defconfig: writes the defaults'
	@echo 'make clean    remove build (the cache and .config stay)'
	@echo
	@echo 'KERNEL=7.2|7.3       version of Linux (now: $(KERNEL)); tests take the debug kernel of the other one'
	@echo 'VARIANT=main|debug   variant of the kernel (debug: lockdep, assertions)'
	@echo 'CONFIG=amd64|cloud|small   make deb: the configuration of Debian, that for virtual machines, or'
	@echo '                     that of make kernel (now: $(CONFIG))'
	@echo 'MACHINE=amd|intel    test machine (default: amd; make test: both)'
	@echo 'CPU=skylake|icelake|sapphire-rapids|zen4|zen5   what CPU the test machine is, and with that which'
	@echo 'MODULES=DIR INITRD=FILE APPEND=TEXT  make shell: modules for KERNEL_IMAGE, another initial root'
	@echo '                     file system, further words on the kernel command line'
	@echo 'PMU=on|off|old       PMU of the test machine'
	@echo 'GROUP=TEXT           make test, test-long: only groups of tests with TEXT in their name, or of'
	@echo '                     this name'
	@echo 'SCENARIO=NAME COUNTERS=N HOST=none|event  make listing: which exit of make bench (now: $(SCENARIO)), with so'
	@echo '                     many counters of the guest (now: $(COUNTERS); 100: all), and what is on the host'
	@echo 'SEED=N PROGRAMS=N    make fuzz, make calls: which programs, and how many (now: $(SEED), $(PROGRAMS))'
	@echo 'MVPMU_CACHE=DIR      where downloads and builds are kept (now: $(or $(MVPMU_CACHE),~/.cache/mvpmu))'
	@echo 'MVPMU_MIRROR=URL     Debian mirror (default: as the host)'

rootfs:
	@$(scripts)/rootfs.sh

kernel: rootfs
	@$(scripts)/kernel.sh main
ifeq ($(VARIANT),debug)
	@$(scripts)/kernel.sh debug
endif

debug-kernel: rootfs
	@KERNEL=$(second) $(scripts)/kernel.sh debug

module: kernel
	@cp build/$(VARIANT)/modules/mvpmu.ko build/mvpmu.ko
	@echo 'build/mvpmu.ko'

tools: rootfs
	@$(scripts)/tools.sh

# The CPU core of the Intel machine.
bochs: rootfs
	@$(scripts)/bochs.sh

# What judges the traces of Intel PT.
libipt: rootfs
	@$(scripts)/libipt.sh

demo: kernel tools $(needs_bochs)
	@$(run) demo $(what) --pmu $(PMU) $(debug)

# Tests make the packages twice, to see that they are the same.
deb: rootfs tools
	@$(scripts)/kernel.sh deb
	@echo 'build/deb'

image: kernel tools
	@$(run) image --config '$(image_config)'

test: kernel debug-kernel tools bochs libipt
	@CONFIG=small $(scripts)/kernel.sh deb
	@CONFIG=small $(scripts)/kernel.sh deb-again
	@$(scripts)/kernel.sh mutants
	@$(if $(long),$(scripts)/kernel.sh static-branches,:)
	@$(if $(long),$(scripts)/kernel.sh every-selftest,:)
	@$(if $(long),$(scripts)/kernel.sh rt,:)
	@$(if $(long),$(scripts)/kernel.sh kcsan,:)
	@$(if $(long),$(scripts)/kernel.sh kasan,:)
	@$(scripts)/debian.sh
	@$(scripts)/series.sh $(filter-out $(KERNEL),$(versions)) $(KERNEL)
	@$(scripts)/kernel.sh kconfig
	@$(if $(or $(if $(GROUP),,all),$(findstring $(GROUP),shown commands)),$(scripts)/checkout-test.sh $(long),:)
	@$(run) test $(long) $(what) '$(GROUP)'

test-long: long := --long
test-long: test

groups: tools
	@$(run) test --long --list $(what) '$(GROUP)'

bench: kernel debug-kernel tools bochs
	@$(run) bench $(what)

fuzz: kernel tools $(if $(filter intel,$(MACHINE)),bochs)
	@$(run) fuzz $(MACHINE:%=--machine %) --seed $(SEED) --programs $(PROGRAMS)

calls: kernel tools $(if $(filter intel,$(MACHINE)),bochs)
	@$(run) calls $(MACHINE:%=--machine %) --seed $(SEED) --programs $(PROGRAMS)

listing: kernel tools $(needs_bochs)
	@$(run) listing '$(SCENARIO)' $(MACHINE:%=--machine %) --counters '$(COUNTERS)' --host '$(HOST)'

sweep: kernel tools bochs
	@$(run) sweep $(MACHINE:%=--machine %)

shell: $(if $(KERNEL_IMAGE),rootfs,kernel) tools $(needs_bochs)
	@$(scripts)/given.sh
	@$(run) shell $(what) --pmu $(PMU) $(debug) \
		$(if $(KERNEL_IMAGE),--kernel-image build/given/kernel) $(if $(INITRD),--initrd build/given/initrd) \
		$$([ ! -d build/given/modules ] || echo --modules build/given/modules) \
		$(if $(COMMAND),--command $(call quoted,$(COMMAND))) $(if $(APPEND),--append $(call quoted,$(APPEND)))

# The options of the build, of Kconfig.
menuconfig defconfig olddefconfig: rootfs
	@$(scripts)/kconfig.sh $@

# These run git as the caller has set it up, not in the root file system.
apply unapply:
	@$(scripts)/apply.sh $@

patches: rootfs
	@$(scripts)/kernel.sh source
	@$(scripts)/mails.sh $(KERNEL)

clean:
	@rm -rf build
