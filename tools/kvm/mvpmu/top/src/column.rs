// SPDX-License-Identifier: GPL-2.0

//! The columns of the table.

use std::cmp::Ordering;

use clap::ValueEnum;

use crate::row::Row;

/// Whether events are shown per second or as their number since the vCPU was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// Per second.
    #[default]
    Rates,
    /// All.
    Totals,
}

/// What a cell holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Not known.
    Nothing,
    /// A name.
    Text(String),
    /// A number of something.
    Integer(u64),
    /// Per second.
    Rate(f64),
    /// Percent.
    Percent(f64),
}

impl Value {
    fn number(&self) -> f64 {
        match self {
            Value::Nothing | Value::Text(_) => -1.0,
            Value::Integer(n) => *n as f64,
            Value::Rate(n) | Value::Percent(n) => *n,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Nothing => f.write_str("-"),
            Value::Text(text) => f.write_str(text),
            Value::Integer(n) => write!(f, "{n}"),
            Value::Rate(n) if *n == 0.0 => f.write_str("0"),
            Value::Rate(n) if *n < 99.95 => write!(f, "{n:.1}"),
            Value::Rate(n) if *n < 99_999.5 => write!(f, "{n:.0}"),
            Value::Rate(n) if *n < 99_999_500.0 => write!(f, "{:.0}k", n / 1e3),
            Value::Rate(n) => write!(f, "{:.0}M", n / 1e6),
            Value::Percent(n) => write!(f, "{n:.1}"),
        }
    }
}

/// Defines the columns: name, title, width, and what they show.
macro_rules! columns {
    ($($name:ident: $title:literal, $width:literal, $help:literal;)*) => {
        /// A column.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
        pub enum Column {
            $(#[doc = $help] $name,)*
        }

        impl Column {
            /// All of them, in their order.
            pub const ALL: &'static [Column] = &[$(Column::$name,)*];

            /// Its head.
            pub fn title(self) -> &'static str {
                match self {
                    $(Column::$name => $title,)*
                }
            }

            /// How wide it is.
            pub fn width(self) -> u16 {
                match self {
                    $(Column::$name => $width,)*
                }
            }

            /// What it shows.
            pub fn help(self) -> &'static str {
                match self {
                    $(Column::$name => $help,)*
                }
            }
        }
    };
}

columns! {
    Guest: "GUEST", 14, "Name that QEMU was given for the guest, or that of the process";
    Pid: "PID", 7, "Process of the VM";
    Vcpu: "VCPU", 4, "Number of the vCPU";
    Cpu: "CPU", 3, "CPU that its thread runs on, or ran on last";
    State: "STATE", 8, "Where its PMU state is: dormant, memory, hardware, waiting";
    Switch: "SWITCH", 7, "State put into hardware";
    Avoid: "AVOID", 7, "VM exits after which it stayed there";
    Release: "RELEASE", 7, "Taken out as the vCPU left the CPU or returned to userspace, or KVM needed it";
    Contend: "CONTEND", 7, "Taken out after a VM exit, as events of the host waited, and refusals";
    Read: "READ", 7, "PMU registers read by the module";
    Write: "WRITE", 7, "PMU registers written by the module";
    Pmi: "PMI", 7, "Interrupts of the guest's counters";
    Trap: "TRAP", 7, "Intercepted accesses of the guest to PMU registers";
    Active: "ACT%", 5, "Time in which the guest used the hardware";
    Hardware: "HW%", 5, "Time in which its state was in hardware, up to the last time it was taken out";
    Cost: "COST%", 5, "Estimate of what switches and intercepted accesses take of a CPU";
}

/// Those that a narrow screen does without, in this order.
const DISPENSABLE: [Column; 8] = [
    Column::Hardware,
    Column::Trap,
    Column::Read,
    Column::Write,
    Column::Pmi,
    Column::Pid,
    Column::Release,
    Column::Cpu,
];

/// The columns of a table, with a space between two.
pub fn fitting(width: u16) -> Vec<Column> {
    let mut columns = Column::ALL.to_vec();
    let needed = |columns: &[Column]| -> u16 { columns.iter().map(|c| c.width() + 1).sum() };
    for column in DISPENSABLE {
        if needed(&columns) <= width {
            break;
        }
        columns.retain(|&other| other != column);
    }
    columns
}

impl Column {
    /// Whether it holds names, which are aligned on the left and sorted from A.
    pub fn is_text(self) -> bool {
        matches!(self, Column::Guest | Column::State)
    }

    /// What it holds for this vCPU.
    pub fn value(self, row: &Row, show: Show) -> Value {
        let counts = match show {
            Show::Rates => &row.recent,
            Show::Totals => &row.counts,
        };
        let events = |n: u64| match show {
            Show::Rates => row.per_second(n).map_or(Value::Nothing, Value::Rate),
            Show::Totals => Value::Integer(n),
        };
        let percent = |n: Option<f64>| n.map_or(Value::Nothing, Value::Percent);
        match self {
            Column::Guest => Value::Text(row.guest.clone()),
            Column::Pid => Value::Integer(row.pid.into()),
            Column::Vcpu => Value::Integer(row.id.into()),
            Column::Cpu => row.cpu.map_or(Value::Nothing, |n| Value::Integer(n.into())),
            Column::State => Value::Text(row.state.name().to_owned()),
            Column::Switch => events(counts.loads),
            Column::Avoid => events(counts.switches_avoided),
            Column::Release => events(counts.releases),
            Column::Contend => events(counts.contended() + counts.refusals),
            Column::Read => events(counts.hw_reads),
            Column::Write => events(counts.hw_writes),
            Column::Pmi => events(counts.pmis),
            Column::Trap => events(counts.intercepted()),
            Column::Active => percent(row.percent(row.recent.time_active_us as f64)),
            Column::Hardware => percent(row.percent(row.recent.time_in_hardware_us as f64)),
            Column::Cost => percent(row.cost_percent()),
        }
    }

    /// Which of two comes first: the greater number, or the name that does in the alphabet.
    pub fn compare(self, one: &Row, other: &Row, show: Show) -> Ordering {
        match (self.value(one, show), self.value(other, show)) {
            (Value::Text(one), Value::Text(other)) => one.cmp(&other),
            (one, other) => other.number().total_cmp(&one.number()),
        }
    }
}

/// The rows with `filter` in what names them, sorted by `column`; equal ones stay in their order.
pub fn arrange(rows: &[Row], filter: &str, column: Column, reverse: bool, show: Show) -> Vec<Row> {
    let filter = filter.to_lowercase();
    let matches = |row: &&Row| {
        let text = format!("{} {}", row.name(), row.state.name());
        text.to_lowercase().contains(&filter)
    };
    let mut rows: Vec<_> = rows.iter().filter(matches).cloned().collect();
    rows.sort_by(|one, other| {
        let order = column.compare(one, other, show);
        if reverse {
            order.reverse()
        } else {
            order
        }
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded;

    // The words of --sort and those of the table have to be the same.
    #[test]
    fn columns_are_sorted_by_their_titles() {
        for &column in Column::ALL {
            let names = column.to_possible_value().expect("none is hidden");
            let name = names.get_name();
            let title = column.title().trim_end_matches('%').to_lowercase();
            // "ACT%" and "HW%" are short for theirs.
            assert!(
                name.starts_with(&title) || column == Column::Hardware,
                "{name} {title}"
            );
            assert!(column.title().len() <= usize::from(column.width()));
        }
    }

    // The usual screen has 80 columns.
    #[test]
    fn a_narrow_screen_has_fewer_columns_and_these_whole() {
        let width = |columns: &[Column]| -> u16 { columns.iter().map(|c| c.width() + 1).sum() };
        assert_eq!(fitting(140), Column::ALL);
        for columns in [80, 100, 120] {
            assert!(width(&fitting(columns)) <= columns);
        }
        assert!(fitting(80).contains(&Column::Contend));
        assert!(fitting(10).contains(&Column::Guest));
    }

    #[test]
    fn rates_have_three_digits_or_more_and_fit() {
        for (rate, text) in [
            (0.0, "0"),
            (0.04, "0.0"),
            (99.94, "99.9"),
            (99.96, "100"),
            (99_999.0, "99999"),
            (99_999.6, "100k"),
            (5_000_000.0, "5000k"),
            (123_456_789.0, "123M"),
        ] {
            assert_eq!(Value::Rate(rate).to_string(), text);
        }
    }

    #[test]
    fn rows_are_filtered_by_what_names_them() {
        let rows = recorded::rows();
        let all = rows.len();
        let by = |filter: &str| arrange(&rows, filter, Column::Pid, false, Show::Rates).len();
        assert_eq!(by(""), all);
        assert_eq!(by("BENCH"), all);
        assert_eq!(by(&format!("({})", rows[0].pid)), 1);
        assert_eq!(by("no such guest"), 0);
    }

    #[test]
    fn the_greatest_number_comes_first_and_last_in_reverse() {
        let rows = recorded::rows();
        let reads = |reverse| -> Vec<u64> {
            arrange(&rows, "", Column::Read, reverse, Show::Totals)
                .iter()
                .map(|row| row.counts.hw_reads)
                .collect()
        };
        let mut expected: Vec<_> = rows.iter().map(|row| row.counts.hw_reads).collect();
        expected.sort_unstable();
        assert_eq!(reads(true), expected);
        expected.reverse();
        assert_eq!(reads(false), expected);
    }
}
