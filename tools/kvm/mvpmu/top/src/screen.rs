// SPDX-License-Identifier: GPL-2.0

//! The screen: head, table, what is known of the selected vCPU, keys.

use mvpmu_host::module::Capability;
use mvpmu_host::perf_events::Owners;
use ratatui::layout::Alignment;
use ratatui::layout::Constraint;
use ratatui::layout::Layout;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::text::Text;
use ratatui::widgets::Block;
use ratatui::widgets::Borders;
use ratatui::widgets::Cell;
use ratatui::widgets::Clear;
use ratatui::widgets::Paragraph;
use ratatui::widgets::Row as TableRow;
use ratatui::widgets::Table;
use ratatui::widgets::TableState;
use ratatui::widgets::Wrap;
use ratatui::Frame;

use crate::column::fitting;
use crate::column::Column;
use crate::column::Show;
use crate::detail;
use crate::row::Row;
use crate::sample::Sample;
use crate::view::View;
use crate::view::KEYS;

/// What is drawn.
pub struct Screen<'a> {
    /// The last reading that succeeded.
    pub sample: &'a Sample,
    /// The rows that the view shows.
    pub rows: &'a [Row],
    /// Who may be in the way.
    pub suspects: Option<&'a Owners>,
    /// Why there is no newer reading.
    pub problem: Option<&'a str>,
    /// Seconds between two readings.
    pub interval: f64,
}

/// One line about the host.
pub fn head(capability: &Capability) -> String {
    format!(
        "{} PMU version {}, {}+{} counters of {} bits, switch={}",
        capability.vendor,
        capability.version,
        capability.gp_counters,
        capability.fixed_counters,
        capability.counter_width,
        capability.switch,
    )
}

/// One line about all VMs.
pub fn totals(sample: &Sample) -> String {
    let totals = &sample.totals;
    let counts = &totals.counts;
    format!(
        "{} VMs, {} vCPUs, {} waiting; since the module was loaded: {} switches, {} avoided, {} for events of the host, {} refused",
        totals.vms,
        totals.vcpus,
        counts.waiting,
        counts.loads,
        counts.switches_avoided,
        counts.contended(),
        counts.refusals,
    )
}

const DETAIL: u16 = 9;

impl Screen<'_> {
    /// Draws it. A screen that is too small shows the table first.
    pub fn draw(&self, frame: &mut Frame<'_>, view: &View) {
        let area = frame.area();
        let detail = if area.height >= DETAIL + 8 { DETAIL } else { 0 };
        let [head, table, detail, keys] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Min(1),
            Constraint::Length(detail),
            Constraint::Length(1),
        ])
        .areas(area);
        self.draw_head(frame, head, view);
        self.draw_table(frame, table, view);
        self.draw_detail(frame, detail, view);
        self.draw_keys(frame, keys, view);
        if view.help {
            draw_help(frame, area);
        }
    }

    fn draw_head(&self, frame: &mut Frame<'_>, area: Rect, view: &View) {
        let paused = if view.paused { " [paused]" } else { "" };
        let per = match view.show {
            Show::Rates => "per second",
            Show::Totals => "since the vCPU was created",
        };
        let first = format!(
            "mvpmu-top: {}; {per}, every {} s{paused}",
            head(&self.sample.capability),
            self.interval
        );
        let lines = vec![Line::from(first), Line::from(totals(self.sample))];
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn draw_table(&self, frame: &mut Frame<'_>, area: Rect, view: &View) {
        let cell = |column: Column, text: String| {
            let alignment = match column.is_text() {
                true => Alignment::Left,
                false => Alignment::Right,
            };
            Cell::from(Text::from(text).alignment(alignment))
        };
        let columns = fitting(area.width.saturating_sub(1));
        let head = columns.iter().map(|&column| {
            let sorted = match column == view.sort {
                true => Style::new().add_modifier(Modifier::UNDERLINED | Modifier::BOLD),
                false => Style::new(),
            };
            cell(column, column.title().to_owned()).style(sorted)
        });
        let rows = self.rows.iter().map(|row| {
            TableRow::new(
                columns
                    .iter()
                    .map(|&column| cell(column, column.value(row, view.show).to_string())),
            )
        });
        let widths = columns
            .iter()
            .map(|column| Constraint::Length(column.width()));
        let reversed = Style::new().add_modifier(Modifier::REVERSED);
        let table = Table::new(rows, widths)
            .header(TableRow::new(head).style(reversed))
            .row_highlight_style(Style::new().add_modifier(Modifier::BOLD))
            .highlight_symbol(">");
        let mut state = TableState::new().with_selected(view.index(self.rows));
        frame.render_stateful_widget(table, area, &mut state);
        if self.rows.is_empty() && area.height > 1 {
            let why = match view.filter.as_str() {
                "" => "no virtual machine with a PMU".to_owned(),
                filter => format!("nothing matches \"{filter}\""),
            };
            let below = Rect {
                y: area.y + 1,
                height: 1,
                ..area
            };
            frame.render_widget(Paragraph::new(why), below);
        }
    }

    fn draw_detail(&self, frame: &mut Frame<'_>, area: Rect, view: &View) {
        let row = view.index(self.rows).map(|at| &self.rows[at]);
        let lines: Vec<_> = row
            .map(|row| detail::lines(row, self.suspects))
            .unwrap_or_default()
            .into_iter()
            .map(Line::from)
            .collect();
        let paragraph = Paragraph::new(lines)
            .wrap(Wrap { trim: false })
            .block(Block::new().borders(Borders::TOP));
        frame.render_widget(paragraph, area);
    }

    fn draw_keys(&self, frame: &mut Frame<'_>, area: Rect, view: &View) {
        let text = match (self.problem, view.editing) {
            (Some(problem), _) => problem.to_owned(),
            (None, true) => format!("filter: {}_", view.filter),
            (None, false) if !view.filter.is_empty() => {
                format!("filter: {}   Esc clears it", view.filter)
            }
            (None, false) => {
                "q quit  p pause  / filter  < > sort  r reverse  t totals  h help".to_owned()
            }
        };
        frame.render_widget(Paragraph::new(text), area);
    }
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let keys = KEYS.iter().map(|(key, what)| format!("{key:10} {what}"));
    let columns = Column::ALL
        .iter()
        .map(|column| format!("{:10} {}", column.title(), column.help()));
    let lines: Vec<_> = keys.chain([String::new()]).chain(columns).collect();
    let lines: Vec<_> = lines.into_iter().map(Line::from).collect();
    let block = Block::bordered().title(" help: any key ends it ");
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
mod tests;
