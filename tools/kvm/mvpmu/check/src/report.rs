// SPDX-License-Identifier: GPL-2.0

//! The findings, for people and for programs.

use serde::Serialize;

use crate::finding::worst;
use crate::finding::Finding;

/// A line per finding, one for what to type, and the verdict.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = finding.severity.mark();
        text += &format!("{mark:5} {:10} {}\n", finding.about, finding.text);
        if let Some(command) = &finding.command {
            text += &format!("{:16} $ {command}\n", "");
        }
    }
    text + &format!("\n{}\n", worst(findings).verdict())
}

#[derive(Serialize)]
struct Report<'a> {
    status: u8,
    verdict: &'static str,
    findings: &'a [Finding],
}

/// One object.
pub fn json(findings: &[Finding]) -> serde_json::Result<String> {
    let worst = worst(findings);
    let report = Report {
        status: worst.status(),
        verdict: worst.verdict(),
        findings,
    };
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}
