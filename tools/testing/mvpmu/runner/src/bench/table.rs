// SPDX-License-Identifier: GPL-2.0

//! The rows as tables: all of them for the terminal, KVM's C code against mvpmu in Markdown.

use std::collections::BTreeMap;

use super::row::Row;
use super::row::Rows;
use super::scenario::Scenario;
use super::scenario::CPUID;
use super::scenario::SCENARIOS;
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
            text.push_str(&format!(
                "| {more} (`{name}`){event} | {} |\n",
                cells.join(" | ")
            ));
        }
    }
    text
}

/// The tables for README.md.
pub fn markdown(rows: &[Row]) -> String {
    let rows = Rows(rows);
    let mut text = String::from("<!-- SPDX-License-Identifier: GPL-2.0 -->\n<!-- make bench -->\n");
    for (machine, title) in [(Machine::Amd, "AMD"), (Machine::Intel, "Intel")] {
        let counters = rows.counters(machine);
        if counters.is_empty() {
            continue;
        }
        text.push_str(&format!(
            "\n{title} machine, operations on PMU registers per VM exit, for guests with {} \
             counters enabled:\n\n| VM exit | C | mvpmu |\n| --- | --- | --- |\n",
            list(&counters)
        ));
        text.push_str(&lines(rows, machine, &SCENARIOS, &["c", "mvpmu"], |row| {
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
        let text = markdown(&rows);
        assert!(text.contains("with 0 and 6 counters"), "{text}");
        let line = "| port I/O, to userspace (`io`) | 27.3, 40.5 | 0, 12 |\n";
        assert!(text.contains(line), "{text}");
        assert!(!text.contains("instructions of host"), "{text}");
    }
}
