#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# first.sh CMD...: the first process of a process namespace. The kernel gives it no default signal
# actions, so CMD must not be it; when it ends, the kernel ends all others.
trap : INT TERM HUP QUIT
cd /mvpmu || exit 1
"$@"
