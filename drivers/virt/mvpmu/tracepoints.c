// SPDX-License-Identifier: GPL-2.0
/* What a tracepoint needs of C. */
#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include <trace/events/mvpmu.h>
