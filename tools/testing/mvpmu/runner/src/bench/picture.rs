// SPDX-License-Identifier: GPL-2.0

//! The rows as a picture: for each machine and scenario a small chart of what a VM exit costs, by
//! number of counters, the providers side by side. The same rows give the same file.

use svg::node::element::Group;
use svg::node::element::Line;
use svg::node::element::Rectangle;
use svg::node::element::Style;
use svg::node::element::Text;
use svg::node::Comment;
use svg::Document;

use super::overhead::SAMPLING;
use super::row::Row;
use super::row::Rows;
use super::scenario::Scenario;
use super::scenario::CPUID;
use super::scenario::SCENARIOS;
use super::table::number;
use super::MACHINES;
use crate::machine::Machine;

/// The providers that have bars, with what they are called.
const BARS: [(&str, &str); 3] = [
    ("emulated", "emulated (perf-based)"),
    ("c", "KVM's C code"),
    ("mvpmu", "mvpmu"),
];

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 16.0;
/// Room for the numbers of a scale, left of a chart.
const SCALE: f64 = 24.0;
const CHART_HEIGHT: f64 = 84.0;
/// Room above a chart for its title and below for the numbers of counters.
const ABOVE: f64 = 30.0;
const BELOW: f64 = 20.0;

/// Colours of the classes, first on a light background, then on a dark one.
const CLASSES: [(&str, &str, &str, &str); 9] = [
    ("back", "fill", "#ffffff", "#161b22"),
    // Around numbers, which may lie on bars.
    ("value", "stroke", "#ffffff", "#161b22"),
    ("text", "fill", "#24292f", "#e6edf3"),
    ("faint", "fill", "#6e7781", "#8b949e"),
    ("grid", "stroke", "#e3e6ea", "#30363d"),
    ("off", "stroke", "#24292f", "#e6edf3"),
    ("emulated", "fill", "#c6cdd5", "#48515c"),
    ("c", "fill", "#75808c", "#8b98a6"),
    ("mvpmu", "fill", "#d9480f", "#ff8a4c"),
];

/// To a tenth of a pixel, which keeps the file small.
fn px(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn style() -> String {
    let rules = |dark: bool| -> String {
        CLASSES
            .iter()
            .map(|(class, property, on_light, on_dark)| {
                let colour = if dark { on_dark } else { on_light };
                format!(".{class}{{{property}:{colour}}}")
            })
            .collect()
    };
    format!(
        "text{{font-family:sans-serif;font-size:11px}}\
         .head{{font-size:14px;font-weight:bold}}.value{{font-size:9px;paint-order:stroke;stroke-width:2px}}.off{{stroke-dasharray:4 3}}\
         {}@media(prefers-color-scheme:dark){{{}}}",
        rules(false),
        rules(true)
    )
}

fn text(content: &str, class: &str, (x, y): (f64, f64), anchor: &str) -> Text {
    Text::new(content)
        .set("class", class)
        .set("x", px(x))
        .set("y", px(y))
        .set("text-anchor", anchor)
}

fn horizontal(class: &str, (x, y): (f64, f64), width: f64) -> Line {
    Line::new()
        .set("class", class)
        .set("x1", px(x))
        .set("x2", px(x + width))
        .set("y1", px(y))
        .set("y2", px(y))
}

/// A step of a scale with two to five steps up to `max`.
fn step(max: f64) -> f64 {
    let magnitude = 10f64.powf(max.max(1.0).log10().floor());
    [0.2, 0.5, 1.0, 2.0]
        .map(|factor| factor * magnitude)
        .into_iter()
        .find(|step| max / step < 5.0)
        .unwrap_or(5.0 * magnitude)
}

/// One chart.
struct Chart<'a> {
    rows: Rows<'a>,
    machine: Machine,
    scenario: (&'a str, bool),
    value: fn(&Row) -> Option<f64>,
    /// The value at its top.
    max: f64,
}

impl Chart<'_> {
    fn value(&self, provider: &str, counters: u64) -> Option<f64> {
        let row = self
            .rows
            .of(self.machine, provider, self.scenario, counters)?;
        (self.value)(row)
    }

    /// The chart without its title, at the lower left corner `(x, y)`.
    fn draw(&self, (x, y): (f64, f64), width: f64) -> Group {
        let height = |value: f64| CHART_HEIGHT * (value / self.max).clamp(0.0, 1.0);
        let mut group = Group::new();
        let step = step(self.max);
        let mut tick = 0.0;
        while tick <= self.max {
            let at = y - height(tick);
            group = group.add(horizontal("grid", (x, at), width)).add(text(
                &number(tick),
                "value faint",
                (x - 3.0, at + 3.0),
                "end",
            ));
            tick += step;
        }
        let counters = self.rows.counters(self.machine);
        let place = width / counters.len() as f64;
        let bar = place * 0.26;
        // On top of all bars.
        let mut labels = Group::new();
        for (n, &k) in counters.iter().enumerate() {
            let left = x + place * (n as f64 + 0.11);
            for (b, (provider, _)) in BARS.iter().enumerate() {
                let Some(value) = self.value(provider, k) else {
                    continue;
                };
                let begin = left + bar * b as f64;
                let rectangle = Rectangle::new()
                    .set("class", *provider)
                    .set("x", px(begin))
                    .set("y", px(y - height(value)))
                    .set("width", px(bar - 1.0))
                    .set("height", px(height(value)));
                if height(value) >= 0.5 {
                    group = group.add(rectangle);
                }
                // That of mvpmu is of interest also if there is nothing to see.
                if *provider == "mvpmu" || value >= 0.5 {
                    let at = (begin + bar / 2.0 - 0.5, y - height(value) - 2.0);
                    let class = match *provider {
                        "mvpmu" => "value mvpmu",
                        _ => "value faint",
                    };
                    let label = match value {
                        value if value < 10.0 => number(value),
                        value => number(value.round()),
                    };
                    labels = labels.add(text(&label, class, at, "middle"));
                }
            }
            let middle = (x + place * (n as f64 + 0.5), y + 12.0);
            labels = labels.add(text(&k.to_string(), "value faint", middle, "middle"));
        }
        group.add(labels)
    }
}

/// A row of charts of a machine, one for each scenario, from `y` down.
struct Band<'a> {
    rows: Rows<'a>,
    /// From left to right.
    charts: Vec<(Machine, Scenario)>,
    host_event: bool,
    value: fn(&Row) -> Option<f64>,
    /// Whether to show what it is without a PMU.
    base: bool,
}

impl Band<'_> {
    /// The value at the top of the charts of a scenario: the same for all machines and with and
    /// without an event of the host. The emulated PMU may be far above.
    fn max(&self, scenario: &str) -> f64 {
        let values = self.rows.0.iter().filter(|row| {
            row.scenario == scenario && ["off", "c", "mvpmu"].contains(&row.provider.as_str())
        });
        values.filter_map(self.value).fold(1.0, f64::max) * 1.1
    }

    fn draw(&self, y: f64) -> Group {
        let width = (WIDTH - 2.0 * MARGIN) / self.charts.len() as f64;
        let mut group = Group::new();
        for (n, (machine, Scenario { name, words, .. })) in self.charts.iter().enumerate() {
            let x = MARGIN + width * n as f64 + SCALE;
            let inner = width - SCALE - 10.0;
            let chart = Chart {
                rows: self.rows,
                machine: *machine,
                scenario: (name, self.host_event),
                value: self.value,
                max: self.max(name),
            };
            let bottom = y + ABOVE + CHART_HEIGHT;
            let mut title = (*words).to_owned();
            group = group.add(chart.draw((x, bottom), inner));
            if let Some(off) = chart.value("off", 0).filter(|_| self.base) {
                let at = bottom - CHART_HEIGHT * off / chart.max;
                title.push_str(&format!("; dashed: {} without a PMU", number(off)));
                group = group.add(horizontal("off", (x, at), inner));
            }
            group = group.add(text(&title, "text", (x, y + 12.0), "start"));
        }
        group
    }

    fn height() -> f64 {
        ABOVE + CHART_HEIGHT + BELOW
    }
}

/// What stands above the charts.
fn heading() -> Group {
    let title = "Operations on PMU registers (RDMSR, WRMSR, RDPMC) per VM exit";
    let mut group = Group::new().add(text(title, "text head", (MARGIN, 26.0), "start"));
    let mut x = MARGIN;
    for (provider, name) in BARS {
        let square = Rectangle::new()
            .set("class", provider)
            .set("x", px(x))
            .set("y", 38)
            .set("width", 11)
            .set("height", 11);
        group = group
            .add(square)
            .add(text(name, "text", (x + 16.0, 48.0), "start"));
        x += 40.0 + 6.2 * name.len() as f64;
    }
    let below = "below each group of bars: the counters that the guest has enabled; \
                 a bar to the top is cut off there";
    group.add(text(below, "faint", (WIDTH - MARGIN, 48.0), "end"))
}

/// The picture, as an SVG file.
pub fn picture(rows: &[Row], sampling: &[Row]) -> String {
    let (rows, sampling) = (Rows(rows), Rows(sampling));
    let mut charts = Group::new();
    let mut y = 74.0;
    let mut band = |title: &str, band: &Band| {
        let content = Group::new()
            .add(text(title, "text head", (MARGIN, y), "start"))
            .add(band.draw(y + 6.0));
        charts = charts.clone().add(content);
        y += Band::height() + 30.0;
    };
    for (machine, name) in MACHINES {
        if rows.counters(machine).is_empty() {
            continue;
        }
        for host_event in [false, true] {
            let event = if host_event {
                "while an event of the host counts"
            } else {
                "no event of the host"
            };
            let operations = Band {
                rows,
                charts: SCENARIOS.map(|scenario| (machine, scenario)).to_vec(),
                host_event,
                value: |row| Some(row.operations()),
                base: false,
            };
            band(&format!("{name}, {event}"), &operations);
        }
    }
    if rows.0.iter().any(|row| row.instructions.is_some()) {
        for (machine, name) in MACHINES {
            if rows.counters(machine).is_empty() {
                continue;
            }
            let instructions = Band {
                rows,
                charts: CPUID.map(|scenario| (machine, scenario)).to_vec(),
                host_event: false,
                value: |row| row.instructions,
                base: true,
            };
            let title = "instructions of host and guest per VM exit, no event of the host";
            band(&format!("{name}, {title}"), &instructions);
        }
    }
    let sampled: Vec<_> = MACHINES
        .into_iter()
        .filter(|(machine, _)| !sampling.counters(*machine).is_empty())
        .map(|(machine, words)| {
            let scenario = Scenario {
                name: SAMPLING,
                words,
                more: words,
                exits: None,
            };
            (machine, scenario)
        })
        .collect();
    if !sampled.is_empty() {
        let overhead = Band {
            rows: sampling,
            charts: sampled,
            host_event: false,
            value: |row| row.instructions,
            base: false,
        };
        let title =
            "Overhead of sampling at 1 kHz in a guest, by sampled events: percent of instructions";
        band(title, &overhead);
    }
    let document = Document::new()
        .set("viewBox", (0.0, 0.0, WIDTH, y - 12.0))
        .set("width", WIDTH)
        .set("height", y - 12.0)
        .add(Comment::new("SPDX-License-Identifier: GPL-2.0"))
        .add(Comment::new("Drawn by make bench"))
        .add(Style::new(style()))
        .add(
            Rectangle::new()
                .set("class", "back")
                .set("width", "100%")
                .set("height", "100%")
                .set("rx", 6),
        )
        .add(heading())
        .add(charts);
    format!("{document}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(provider: &str, rdmsr: f64) -> Row {
        Row {
            machine: "amd".to_owned(),
            provider: provider.to_owned(),
            scenario: "io".to_owned(),
            host_event: false,
            counters: 4,
            rdmsr,
            wrmsr: 0.0,
            rdpmc: 0.0,
            lvtpc: 0.0,
            instructions: None,
        }
    }

    /// The heights of a provider's bars, without its square in the heading.
    fn heights(picture: &str, provider: &str) -> Vec<f64> {
        let begin = format!("<rect class=\"{provider}\" height=\"");
        let bars = picture.lines().filter_map(|line| line.strip_prefix(&begin));
        bars.filter_map(|rest| rest.split('"').next()?.parse().ok())
            .filter(|&height| height != 11.0)
            .collect()
    }

    // Has to fail when a bar is not as high as its value, or what is nothing has no number.
    #[test]
    fn bars_are_as_high_as_values() {
        let rows = [row("emulated", 400.0), row("c", 40.0), row("mvpmu", 0.0)];
        let picture = picture(&rows, &[]);
        let full = heights(&picture, "emulated");
        let c = heights(&picture, "c");
        assert_eq!(full, [CHART_HEIGHT]);
        assert_eq!(c, [px(CHART_HEIGHT / 1.1)]);
        assert_eq!(heights(&picture, "mvpmu"), [0.0; 0]);
        for label in ["400", "40", "0"] {
            assert!(picture.lines().any(|line| line == label), "{label}");
        }
    }

    // Has to fail when the file depends on more than the rows.
    #[test]
    fn the_same_rows_give_the_same_file() {
        let rows = [row("c", 27.3), row("mvpmu", 12.0)];
        assert_eq!(picture(&rows, &[]), picture(&rows, &[]));
    }

    // Has to fail when a scale has too few steps to read it, or too many.
    #[test]
    fn scales_have_two_to_five_steps() {
        for max in [1.0, 1.1, 3.0, 9.9, 10.0, 57.0, 229.0, 999.0, 3036.0] {
            let steps = max / step(max);
            assert!((2.0..=5.0).contains(&steps), "{max}: {steps}");
        }
    }
}
