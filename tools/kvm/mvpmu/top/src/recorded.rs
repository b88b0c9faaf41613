// SPDX-License-Identifier: GPL-2.0

//! Two readings of the Intel machine for tests: one guest that counts against an event of the host, and
//! a process with two VMs whose vCPUs take turns on the one CPU.

use mvpmu_host::fixture::Host;

use crate::cost::Prices;
use crate::row;
use crate::row::Row;
use crate::sample::Sample;

/// The prices in tests.
pub const PRICES: Prices = Prices {
    read: 40,
    write: 100,
    exit: 1000,
};

/// The host of a reading.
pub fn host(name: &str, recording: &str) -> Host {
    let host = Host::new(name);
    host.empty("/sys/module/mvpmu");
    host.replay(recording);
    host
}

/// The first reading.
pub const FIRST: &str = include_str!("../recorded/first");

/// The second one.
pub const SECOND: &str = include_str!("../recorded/second");

/// Both.
pub fn samples() -> (Sample, Sample) {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::Relaxed;

    static NEXT: AtomicU32 = AtomicU32::new(0);
    let read = |recording| {
        let name = format!("recorded-{}", NEXT.fetch_add(1, Relaxed));
        let host = host(&name, recording);
        Sample::read(&host.root()).expect("the recording is whole")
    };
    (read(FIRST), read(SECOND))
}

/// The vCPUs of the second, with what has changed.
pub fn rows() -> Vec<Row> {
    let (first, second) = samples();
    row::rows(&second, Some(&first), &PRICES)
}
