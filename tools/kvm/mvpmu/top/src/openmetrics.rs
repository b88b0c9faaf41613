// SPDX-License-Identifier: GPL-2.0

//! A reading as OpenMetrics. Node_exporter's textfile collector reads the older format of Prometheus:
//! types are only those that both know, and no sample has a time stamp.

use crate::counts::Counts;
use crate::counts::Kind;
use crate::row::Row;
use crate::sample::Sample;

/// Label names and values.
type Labels = Vec<(&'static str, String)>;

/// A metric family: all of its samples stand together.
struct Family {
    name: String,
    kind: &'static str,
    unit: Option<&'static str>,
    help: String,
    samples: Vec<(Labels, String)>,
}

impl Family {
    fn gauge(name: &str, help: &str, samples: Vec<(Labels, String)>) -> Self {
        Family {
            name: name.to_owned(),
            kind: "gauge",
            unit: None,
            help: help.to_owned(),
            samples,
        }
    }

    fn counter(name: String, help: &str, samples: Vec<(Labels, String)>) -> Self {
        Family {
            name,
            kind: "counter",
            unit: None,
            help: help.to_owned(),
            samples,
        }
    }

    fn seconds(mut self) -> Self {
        self.unit = Some("seconds");
        self
    }

    fn write(&self, text: &mut String) {
        if self.samples.is_empty() {
            return;
        }
        let Family { name, kind, .. } = self;
        *text += &format!("# TYPE {name} {kind}\n");
        if let Some(unit) = self.unit {
            *text += &format!("# UNIT {name} {unit}\n");
        }
        *text += &format!("# HELP {name} {}\n", escape(&self.help));
        let suffix = if *kind == "counter" { "_total" } else { "" };
        for (labels, value) in &self.samples {
            let labels: Vec<_> = labels
                .iter()
                .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
                .collect();
            let labels = match &labels[..] {
                [] => String::new(),
                labels => format!("{{{}}}", labels.join(",")),
            };
            *text += &format!("{name}{suffix}{labels} {value}\n");
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('"', "\\\"")
}

fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// A family per count, and one for the times, with the samples that `each` makes of a count's index
/// and value.
fn families(prefix: &str, sources: &[(Labels, Counts)]) -> Vec<Family> {
    let mut families = Vec::new();
    let mut times = Vec::new();
    for (index, (name, kind, help, _)) in Counts::default().each().into_iter().enumerate() {
        let samples = sources
            .iter()
            .map(|(labels, counts)| (labels.clone(), counts.each()[index].3));
        match kind {
            Kind::Event => {
                let samples = samples.map(|(labels, n)| (labels, n.to_string()));
                let name = format!("{prefix}_{name}");
                families.push(Family::counter(name, help, samples.collect()));
            }
            Kind::Now => {
                let samples = samples.map(|(labels, n)| (labels, n.to_string()));
                let name = format!("{prefix}_{name}");
                families.push(Family::gauge(&name, help, samples.collect()));
            }
            Kind::Time => {
                let state = name.trim_start_matches("time_").trim_end_matches("_us");
                times.extend(samples.map(|(mut labels, us)| {
                    labels.push(("state", state.to_owned()));
                    (labels, seconds(us))
                }));
            }
        }
    }
    let help = "Time by use of the hardware; in_hardware is a part of active";
    families.push(Family::counter(format!("{prefix}_time_seconds"), help, times).seconds());
    families
}

/// The whole reading.
pub fn text(sample: &Sample, rows: &[Row]) -> String {
    let capability = &sample.capability;
    let number = |n: u64| vec![(Labels::new(), n.to_string())];
    let labels = vec![
        ("vendor", capability.vendor.clone()),
        ("version", capability.version.to_string()),
        ("switch", capability.switch.clone()),
        ("reason", capability.reason.clone().unwrap_or_default()),
    ];
    let enabled = vec![(labels, u64::from(capability.enabled).to_string())];
    let totals = &sample.totals;
    let mut all = vec![
        Family::gauge(
            "mvpmu_enabled",
            "Whether guests get the host's PMU",
            enabled,
        ),
        Family::gauge("mvpmu_vms", "VMs with a PMU that exist", number(totals.vms)),
        Family::gauge("mvpmu_vcpus", "Their vCPUs", number(totals.vcpus)),
    ];
    all.extend(families("mvpmu", &[(Labels::new(), totals.counts)]));

    let vcpus: Vec<_> = rows
        .iter()
        .map(|row| {
            let labels = vec![
                ("guest", row.guest.clone()),
                ("pid", row.pid.to_string()),
                ("vm", row.vm.to_string()),
                ("vcpu", row.id.to_string()),
            ];
            (labels, row.counts)
        })
        .collect();
    all.extend(families("mvpmu_vcpu", &vcpus));
    let costs = rows.iter().zip(&vcpus).map(|(row, (labels, _))| {
        (
            labels.clone(),
            format!(
                "{}.{:09}",
                row.cost.ns / 1_000_000_000,
                row.cost.ns % 1_000_000_000
            ),
        )
    });
    let help = "Estimate of what switches and intercepted accesses took";
    all.push(
        Family::counter("mvpmu_vcpu_cost_seconds".to_owned(), help, costs.collect()).seconds(),
    );

    let mut text = String::new();
    for family in all {
        family.write(&mut text);
    }
    text + "# EOF\n"
}

#[cfg(test)]
mod tests;
