// SPDX-License-Identifier: GPL-2.0

//! The rows as tables: all of them for the terminal, KVM's C code against mvpmu in Markdown.

use std::collections::BTreeMap;

use super::overhead::SAMPLING;
use super::row::Row;
use super::row::Rows;
use super::scenario;
use super::scenario::Scenario;
use super::scenario::CPUID;
use super::scenario::SCENARIOS;
use super::MACHINES;
use super::PROVIDERS;
use crate::machine::Machine;

/// A number to one digit, without "-0.0" or ".0".
pub fn number(value: f64) -> String {
    let value = (value * 10.0).round() / 10.0 + 0.0;
    format!("{value}")
}

fn list(counters: &[u64]) -> String {
    let counters: Vec<_> = counters.iter().map(u64::to_string).collect();
    match counters.split_last() {
        Some((last, all)) if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        _ => counters.join(""),
    }
}

/// A line for each scenario, with a cell for each provider: the values for all numbers of counters.
fn lines(
    rows: Rows,
    machine: Machine,
    scenarios: &[Scenario],
    providers: &[&str],
    value: impl Fn(&Row) -> Option<f64>,
) -> String {
    let mut text = String::new();
    for host_event in [false, true] {
        for Scenario { name, more, .. } in scenarios {
            let cells: Vec<_> = providers
                .iter()
                .map(|provider| {
                    let values: Vec<_> = rows
                        .counters(machine)
                        .into_iter()
                        .filter_map(|k| rows.of(machine, provider, (name, host_event), k))
                        .filter_map(&value)
                        .map(number)
                        .collect();
                    values.join(", ")
                })
                .collect();
            if cells.iter().all(String::is_empty) {
                continue;
            }
            let event = if host_event {
                ", with an event of the host"
            } else {
                ""
            };
            let cells: Vec<_> = cells
                .iter()
                .map(|cell| match cell.as_str() {
                    "" => "none",
                    values => values,
                })
                .collect();
            text.push_str(&format!(
                "| {more} (`{name}`){event} | {} |\n",
                cells.join(" | ")
            ));
        }
    }
    text
}

/// The tables for README.md.
pub fn markdown(rows: &[Row], sampling: &[Row]) -> String {
    let (rows, sampling) = (Rows(rows), Rows(sampling));
    let mut text = String::from("<!-- SPDX-License-Identifier: GPL-2.0 -->\n<!-- make bench -->\n");
    for (machine, title) in MACHINES {
        let counters = rows.counters(machine);
        if counters.is_empty() {
            continue;
        }
        text.push_str(&format!(
            "\n{title} machine, operations on PMU registers per VM exit, for guests with {} \
             counters enabled:\n\n| VM exit | C | mvpmu |\n| --- | --- | --- |\n",
            list(&counters)
        ));
        let scenarios = scenario::with_branches("mvpmu", &SCENARIOS);
        text.push_str(&lines(rows, machine, &scenarios, &["c", "mvpmu"], |row| {
            Some(row.operations())
        }));
        let of_cpuid = lines(rows, machine, &CPUID, &PROVIDERS, |row| row.instructions);
        if !of_cpuid.is_empty() {
            text.push_str(&format!(
                "\n{title} machine, instructions of host and guest per VM exit:\n\n\
                 | VM exit | no PMU | emulated | C | mvpmu |\n| --- | --- | --- | --- | --- |\n"
            ));
            text.push_str(&of_cpuid);
        }
    }
    if !sampling.0.is_empty() {
        text.push_str(
            "\nInstructions of the whole machine more than without perf, while a guest samples at \
             1 kHz:\n\n| sampled events | emulated | C | mvpmu |\n| --- | --- | --- | --- |\n",
        );
    }
    for (machine, title) in MACHINES {
        for events in sampling.counters(machine) {
            let cells = PROVIDERS[1..].iter().map(|provider| {
                let row = sampling.of(machine, provider, (SAMPLING, false), events);
                let percent = row.and_then(|row| row.instructions);
                percent.map_or(String::new(), |percent| format!("{percent:.2} %"))
            });
            let cells: Vec<_> = cells.collect();
            let cells = cells.join(" | ");
            text.push_str(&format!("| {title} machine, {events} | {cells} |\n"));
        }
    }
    text
}

/// Operations per exit, a line for each scenario and number of counters.
pub fn show(rows: &[Row]) {
    println!("PMU register operations per VM exit (RDMSR + WRMSR + RDPMC; instructions)");
    println!(
        "{:24} {:>18} {:>18} {:>18} {:>18}",
        "", "off", "emulated", "C", "mvpmu"
    );
    let mut cells: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for row in rows {
        let key = (&row.machine, row.host_event, &row.scenario, row.counters);
        let operations = (row.operations() * 10.0).round() / 10.0 + 0.0;
        let text = match row.instructions {
            Some(instructions) => format!("{operations:.1}; {instructions:.0}"),
            None => format!("{operations:.1}"),
        };
        cells
            .entry(key)
            .or_default()
            .insert(row.provider.as_str(), text);
    }
    for ((machine, host_event, scenario, counters), cells) in cells {
        let event = if host_event { "+event" } else { "" };
        let name = format!("{machine} {scenario}{event} k={counters}");
        let line: Vec<_> = PROVIDERS
            .iter()
            .map(|provider| format!("{:>18}", cells.get(provider).map_or("", String::as_str)))
            .collect();
        println!("{name:24} {}", line.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use super::super::overhead::Overhead;
    use super::*;

    fn row(provider: &str, counters: u64, rdmsr: f64) -> Row {
        Row {
            machine: "amd".to_owned(),
            provider: provider.to_owned(),
            scenario: "io".to_owned(),
            host_event: false,
            counters,
            rdmsr,
            wrmsr: 0.04,
            rdpmc: 0.0,
            lvtpc: 1.0,
            instructions: None,
        }
    }

    // Has to fail when a cell is that of another provider or number of counters.
    #[test]
    fn a_cell_has_a_value_for_each_number_of_counters() {
        let rows = [
            row("c", 6, 40.5),
            row("mvpmu", 0, -0.05),
            row("c", 0, 27.3),
            row("mvpmu", 6, 12.0),
        ];
        let text = markdown(&rows, &[]);
        assert!(text.contains("with 0 and 6 counters"), "{text}");
        let line = "| port I/O, to userspace (`io`) | 27.3, 40.5 | 0, 12 |\n";
        assert!(text.contains(line), "{text}");
        assert!(!text.contains("instructions of host"), "{text}");
    }

    // Has to fail when a percentage is that of another provider, or of other events.
    #[test]
    fn overheads_are_percentages() {
        let json = r#"[
            {"machine": "intel", "provider": "c", "events": 10, "overhead": 0.0429},
            {"machine": "intel", "provider": "mvpmu", "events": 10, "overhead": 0.0339},
            {"machine": "intel", "provider": "mvpmu", "events": 6, "overhead": 0.015}
        ]"#;
        let overheads: Vec<Overhead> = serde_json::from_str(json).unwrap();
        let rows: Vec<_> = overheads.into_iter().map(Overhead::row).collect();
        let text = markdown(&[], &rows);
        let lines =
            "| Intel machine, 6 |  |  | 1.50 % |\n| Intel machine, 10 |  | 4.29 % | 3.39 % |\n";
        assert!(text.ends_with(lines), "{text}");
    }
}
