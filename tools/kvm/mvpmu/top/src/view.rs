// SPDX-License-Identifier: GPL-2.0

//! What the user has chosen to see, and how keys change it.

use ratatui::crossterm::event::KeyCode;
use ratatui::crossterm::event::KeyEvent;
use ratatui::crossterm::event::KeyModifiers;

use crate::column::arrange;
use crate::column::Column;
use crate::column::Show;
use crate::row::Row;

/// The keys, for the help.
pub const KEYS: [(&str, &str); 9] = [
    ("q, Ctrl-C", "quit"),
    ("p, Space", "pause, and go on"),
    ("Up, Down", "select a vCPU"),
    ("<, >", "sort by the column on the left, on the right"),
    ("r", "reverse the order"),
    ("t", "per second, or since the vCPU was created"),
    (
        "/",
        "filter by name, process, vCPU or state; Enter ends, Esc clears",
    ),
    ("+, -", "read less often, more often"),
    ("h, ?", "help"),
];

/// What a key asks for beyond the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// The end.
    Quit,
    /// Another interval: this many times the present one.
    Slower,
    /// Half of it.
    Faster,
}

/// The view.
#[derive(Clone, Debug)]
pub struct View {
    /// The column that rows are sorted by.
    pub sort: Column,
    /// Whether the order is reversed.
    pub reverse: bool,
    /// What rows must have in their names.
    pub filter: String,
    /// Whether keys go to the filter.
    pub editing: bool,
    /// Whether the reading stays.
    pub paused: bool,
    /// Whether the help is shown.
    pub help: bool,
    /// Rates or totals.
    pub show: Show,
    /// The selected vCPU.
    pub selected: Option<(u32, u64, u32)>,
}

impl View {
    /// The view at the beginning.
    pub fn new(sort: Column, reverse: bool, filter: String, show: Show) -> Self {
        View {
            sort,
            reverse,
            filter,
            editing: false,
            paused: false,
            help: false,
            show,
            selected: None,
        }
    }

    /// The rows as they are shown.
    pub fn arrange(&self, rows: &[Row]) -> Vec<Row> {
        arrange(rows, &self.filter, self.sort, self.reverse, self.show)
    }

    /// The index of the selected one among `rows`; the first if it is gone.
    pub fn index(&self, rows: &[Row]) -> Option<usize> {
        let found = rows.iter().position(|row| Some(row.key()) == self.selected);
        found.or((!rows.is_empty()).then_some(0))
    }

    /// A key was pressed, while these were shown.
    pub fn key(&mut self, key: KeyEvent, shown: &[Row]) -> Action {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Action::Quit;
        }
        if self.editing {
            self.edit(key.code);
            return Action::None;
        }
        if self.help {
            self.help = false;
            return Action::None;
        }
        match key.code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('<') | KeyCode::Left => self.sort_by_neighbour(Column::ALL.len() - 1),
            KeyCode::Char('>') | KeyCode::Right => self.sort_by_neighbour(1),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('t') => {
                self.show = match self.show {
                    Show::Rates => Show::Totals,
                    Show::Totals => Show::Rates,
                }
            }
            KeyCode::Char('/') => self.editing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('+') => return Action::Slower,
            KeyCode::Char('-') => return Action::Faster,
            KeyCode::Char('h' | '?') => self.help = true,
            KeyCode::Down | KeyCode::Char('j') => self.select(shown, |at| at + 1),
            KeyCode::Up | KeyCode::Char('k') => self.select(shown, |at| at.saturating_sub(1)),
            _ => {}
        }
        Action::None
    }

    fn edit(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.editing = false,
            KeyCode::Esc => {
                self.editing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) => self.filter.push(c),
            _ => {}
        }
    }

    fn sort_by_neighbour(&mut self, distance: usize) {
        let all = Column::ALL;
        let at = all.iter().position(|&column| column == self.sort);
        self.sort = all[(at.unwrap_or(0) + distance) % all.len()];
    }

    fn select(&mut self, shown: &[Row], step: impl Fn(usize) -> usize) {
        if let Some(at) = self.index(shown) {
            let to = step(at).min(shown.len() - 1);
            self.selected = Some(shown[to].key());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded;

    fn view() -> View {
        View::new(Column::Switch, false, String::new(), Show::Rates)
    }

    fn press(view: &mut View, keys: &str) -> Action {
        let rows = recorded::rows();
        let mut action = Action::None;
        for c in keys.chars() {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                'v' => KeyCode::Down,
                '^' => KeyCode::Up,
                c => KeyCode::Char(c),
            };
            let shown = view.arrange(&rows);
            action = view.key(KeyEvent::new(code, KeyModifiers::NONE), &shown);
        }
        action
    }

    #[test]
    fn q_and_control_c_quit_whatever_is_on() {
        assert_eq!(press(&mut view(), "q"), Action::Quit);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        for before in ["", "/", "h", "p"] {
            let mut view = view();
            press(&mut view, before);
            assert_eq!(view.key(control_c, &[]), Action::Quit);
        }
    }

    #[test]
    fn a_filter_takes_the_keys_until_its_end() {
        let mut view = view();
        assert_eq!(press(&mut view, "/qp\n"), Action::None);
        assert_eq!((view.filter.as_str(), view.paused), ("qp", false));
        assert_eq!(press(&mut view, "p"), Action::None);
        assert!(view.paused);
        press(&mut view, "\x1b");
        assert_eq!(view.filter, "");
    }

    #[test]
    fn the_selection_stays_with_its_vcpu_and_within_the_table() {
        let mut view = view();
        view.sort = Column::Pid;
        let rows = recorded::rows();
        let shown = view.arrange(&rows);
        assert_eq!(view.index(&shown), Some(0));
        press(&mut view, "v");
        assert_eq!(view.selected, Some(shown[1].key()));
        press(&mut view, "r");
        let reversed = view.arrange(&rows);
        let at = view.index(&reversed).expect("there are rows");
        assert_eq!(reversed[at].key(), shown[1].key());
        press(&mut view, "vvvvvvvv");
        assert_eq!(view.index(&reversed), Some(rows.len() - 1));
        press(&mut view, "^^^^^^^^");
        assert_eq!(view.index(&reversed), Some(0));
        assert_eq!(view.index(&[]), None);
    }

    #[test]
    fn sorting_goes_round_the_columns() {
        let mut view = view();
        view.sort = Column::Guest;
        press(&mut view, "<");
        assert_eq!(view.sort, Column::Cost);
        press(&mut view, ">");
        assert_eq!(view.sort, Column::Guest);
    }
}
