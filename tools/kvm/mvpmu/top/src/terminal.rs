// SPDX-License-Identifier: GPL-2.0

//! The loop on a terminal, which is restored whatever ends it.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use mvpmu_host::perf_events::Owners;
use mvpmu_host::Root;
use ratatui::crossterm::event;
use ratatui::crossterm::event::Event;
use ratatui::crossterm::event::KeyEventKind;
use ratatui::DefaultTerminal;
use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;

use crate::cost::Prices;
use crate::row::rows;
use crate::row::Row;
use crate::sample::Sample;
use crate::screen::Screen;
use crate::view::Action;
use crate::view::View;

/// How long a signal may go unnoticed.
const GLANCE: Duration = Duration::from_millis(200);

/// The shortest and the longest time between two readings.
pub const SHORTEST: f64 = 0.1;
const LONGEST: f64 = 3600.0;

/// Shows `root` until the user, or a signal, ends it.
pub fn run(root: &Root, view: View, prices: &Prices, interval: f64) -> Result<()> {
    // The first reading may fail, and shall do so on a terminal as it was.
    let first = Sample::read(root)?;
    let end = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, end.clone()).context("signal handlers")?;
    }
    let mut terminal = ratatui::try_init().context("the terminal")?;
    let mut live = Live {
        root,
        prices,
        interval,
        view,
        rows: rows(&first, None, prices),
        suspects: first.suspects(root, None),
        sample: first,
        problem: None,
    };
    let result = live.run(&mut terminal, &end);
    // It is restored also if that has failed: the error goes to the terminal as it was.
    let restored = ratatui::try_restore().context("the terminal");
    result.and(restored)
}

struct Live<'a> {
    root: &'a Root,
    prices: &'a Prices,
    interval: f64,
    view: View,
    sample: Sample,
    rows: Vec<Row>,
    suspects: Option<Owners>,
    problem: Option<String>,
}

impl Live<'_> {
    fn run(&mut self, terminal: &mut DefaultTerminal, end: &AtomicBool) -> Result<()> {
        let mut read_at = Instant::now();
        while !end.load(Relaxed) {
            let shown = self.view.arrange(&self.rows);
            let screen = Screen {
                sample: &self.sample,
                rows: &shown,
                suspects: self.suspects.as_ref(),
                problem: self.problem.as_deref(),
                interval: self.interval,
            };
            terminal.draw(|frame| screen.draw(frame, &self.view))?;

            let interval = Duration::from_secs_f64(self.interval);
            let rest = (read_at + interval).saturating_duration_since(Instant::now());
            if event::poll(rest.min(GLANCE)).context("the terminal")? {
                match event::read().context("the terminal")? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => {
                        match self.view.key(key, &shown) {
                            Action::None => {}
                            Action::Quit => return Ok(()),
                            Action::Slower => self.interval = (self.interval * 2.0).min(LONGEST),
                            Action::Faster => self.interval = (self.interval / 2.0).max(SHORTEST),
                        }
                    }
                    _ => {}
                }
            }
            if read_at.elapsed() >= interval {
                read_at = Instant::now();
                if !self.view.paused {
                    self.read();
                }
            }
        }
        Ok(())
    }

    /// Another reading. If there is none, the module is gone, perhaps for a moment.
    fn read(&mut self) {
        match Sample::read(self.root) {
            Ok(sample) => {
                self.rows = rows(&sample, Some(&self.sample), self.prices);
                self.suspects = sample.suspects(self.root, Some(&self.sample));
                self.sample = sample;
                self.problem = None;
            }
            Err(problem) => self.problem = Some(problem.to_string()),
        }
    }
}
