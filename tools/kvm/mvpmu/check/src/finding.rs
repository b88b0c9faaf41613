// SPDX-License-Identifier: GPL-2.0

//! What was found, and what follows.

use serde::Serialize;

/// What a finding means for who wants to use mvpmu.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It works as it is; worth knowing.
    Advice,
    /// It has to be changed.
    Todo,
    /// It cannot be changed on this host.
    Never,
}

impl Severity {
    /// The mark at the begin of a line.
    pub fn mark(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Advice => "note",
            Severity::Todo => "TODO",
            Severity::Never => "NEVER",
        }
    }

    /// The exit status when there is nothing worse.
    pub fn status(self) -> u8 {
        match self {
            Severity::Ok | Severity::Advice => 0,
            Severity::Todo => 1,
            Severity::Never => 2,
        }
    }

    /// All of it in a word.
    pub fn verdict(self) -> &'static str {
        match self {
            Severity::Ok | Severity::Advice => "this host is ready for mvpmu",
            Severity::Todo => "this host can run mvpmu after what is marked TODO",
            Severity::Never => "this host cannot run mvpmu",
        }
    }
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about, one word or two.
    pub about: &'static str,
    /// What it means.
    pub severity: Severity,
    /// What was found.
    pub text: String,
    /// What to type.
    pub command: Option<String>,
}

impl Finding {
    fn new(about: &'static str, severity: Severity, text: impl Into<String>) -> Self {
        Finding {
            about,
            severity,
            text: text.into(),
            command: None,
        }
    }

    /// It is as it should be.
    pub fn ok(about: &'static str, text: impl Into<String>) -> Self {
        Finding::new(about, Severity::Ok, text)
    }

    /// It is worth knowing.
    pub fn advice(about: &'static str, text: impl Into<String>) -> Self {
        Finding::new(about, Severity::Advice, text)
    }

    /// It has to be changed.
    pub fn todo(about: &'static str, text: impl Into<String>) -> Self {
        Finding::new(about, Severity::Todo, text)
    }

    /// It cannot be changed.
    pub fn never(about: &'static str, text: impl Into<String>) -> Self {
        Finding::new(about, Severity::Never, text)
    }

    /// By this command.
    pub fn by(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }
}

/// The worst of all.
pub fn worst(findings: &[Finding]) -> Severity {
    findings
        .iter()
        .map(|finding| finding.severity)
        .max()
        .unwrap_or(Severity::Ok)
}
