// SPDX-License-Identifier: GPL-2.0

//! Drawn on a terminal in memory, of the recorded readings.

use ratatui::backend::TestBackend;
use ratatui::Terminal;

use super::*;
use crate::recorded;

fn view() -> View {
    View::new(Column::Switch, false, String::new(), Show::Rates)
}

/// The screen as lines of text.
fn drawn(width: u16, height: u16, view: &View, problem: Option<&str>) -> Vec<String> {
    let (_, sample) = recorded::samples();
    let rows = view.arrange(&recorded::rows());
    let screen = Screen {
        sample: &sample,
        rows: &rows,
        suspects: None,
        problem,
        interval: 1.0,
    };
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it is in memory");
    terminal
        .draw(|frame| screen.draw(frame, view))
        .expect("it is in memory");
    let buffer = terminal.backend().buffer();
    let line = |y| -> String { (0..width).map(|x| buffer[(x, y)].symbol()).collect() };
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

#[test]
fn each_vcpu_is_a_line_below_the_titles() {
    let lines = drawn(140, 30, &view(), None);
    assert!(lines[0].starts_with("mvpmu-top: intel PMU version 5, 8+3 counters"));
    assert!(lines[1].starts_with("3 VMs, 3 vCPUs"));
    let titles: Vec<_> = lines[2].split_whitespace().collect();
    let expected: Vec<_> = Column::ALL.iter().map(|column| column.title()).collect();
    assert_eq!(titles, expected);
    let rows = view().arrange(&recorded::rows());
    for (line, row) in lines[3..].iter().zip(&rows) {
        let cells: Vec<_> = line.trim_start_matches('>').split_whitespace().collect();
        let expected: Vec<_> = Column::ALL
            .iter()
            .map(|column| column.value(row, Show::Rates).to_string())
            .collect();
        assert_eq!(cells, expected);
    }
    assert_eq!(
        lines[29],
        "q quit  p pause  / filter  < > sort  r reverse  t totals  h help"
    );
}

#[test]
fn the_selected_vcpu_is_described_below() {
    let lines = drawn(140, 30, &view(), None).join("\n");
    let first = &view().arrange(&recorded::rows())[0];
    assert!(lines.contains(&first.name()));
    assert!(lines.contains(&format!("in hardware {} times", first.counts.loads)));
    assert!(lines.contains("contention: "));
}

#[test]
fn a_filter_that_fits_nothing_says_so() {
    let mut view = view();
    view.filter = "web".to_owned();
    let lines = drawn(140, 30, &view, None);
    assert_eq!(lines[3], "nothing matches \"web\"");
    assert_eq!(lines[29], "filter: web   Esc clears it");
    view.editing = true;
    assert_eq!(drawn(140, 30, &view, None)[29], "filter: web_");
}

#[test]
fn why_there_is_no_newer_reading_is_the_last_line() {
    let problem = "mvpmu is not loaded";
    assert_eq!(drawn(140, 30, &view(), Some(problem))[29], problem);
}

#[test]
fn a_pause_is_shown() {
    let mut view = view();
    assert!(!drawn(140, 30, &view, None)[0].contains("[paused]"));
    view.paused = true;
    assert!(drawn(140, 30, &view, None)[0].ends_with("[paused]"));
}

#[test]
fn the_help_names_each_key_and_column() {
    let mut view = view();
    view.help = true;
    let lines = drawn(140, 40, &view, None).join("\n");
    for (key, what) in KEYS {
        assert!(lines.contains(key) && lines.contains(what), "{key}");
    }
    for column in Column::ALL {
        assert!(lines.contains(column.help()), "{}", column.title());
    }
}

// A terminal may have any size.
#[test]
fn it_can_be_drawn_at_any_size() {
    let mut view = view();
    for (width, height) in [(1, 1), (10, 3), (80, 24), (500, 200)] {
        for help in [false, true] {
            view.help = help;
            drawn(width, height, &view, None);
        }
    }
}
