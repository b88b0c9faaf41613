// SPDX-License-Identifier: GPL-2.0

//! The rows of sampling.json, of which the tables and the picture show the overhead.

use serde::Deserialize;

use super::row::Row;

/// What sampling so many events costs, as a fraction of what the guest's work does.
#[derive(Deserialize)]
pub struct Overhead {
    machine: String,
    provider: String,
    events: u64,
    overhead: f64,
}

/// The name of the scenario of these rows.
pub const SAMPLING: &str = "sampling";

impl Overhead {
    /// As a row for a chart: events in place of counters, percent in place of instructions.
    pub fn row(self) -> Row {
        Row {
            machine: self.machine,
            provider: self.provider,
            scenario: SAMPLING.to_owned(),
            host_event: false,
            counters: self.events,
            rdmsr: 0.0,
            wrmsr: 0.0,
            rdpmc: 0.0,
            lvtpc: 0.0,
            instructions: Some(self.overhead * 100.0),
        }
    }
}
