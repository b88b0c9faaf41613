// SPDX-License-Identifier: GPL-2.0

//! Reports as files.

use std::fs;
use std::path::Path;

use anyhow::anyhow;
use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use serde_json::Value;

use crate::schema::NAME;
use crate::schema::VERSION;
use crate::Report;

/// Reads the report in this file.
pub fn read(path: &Path) -> Result<Report> {
    let text = fs::read(path)
        .map_err(anyhow::Error::from)
        .and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| anyhow!("no report: it is no text"))
        });
    text.and_then(|text| parse(&text))
        .with_context(|| path.display().to_string())
}

/// Reads a report.
pub fn parse(text: &str) -> Result<Report> {
    ensure!(!text.trim().is_empty(), "no report: it is empty");
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) if error.is_eof() => {
            bail!(
                "the report is cut off after {} bytes: copy it from the stick once more",
                text.len()
            )
        }
        Err(error) => bail!("no report: {error}"),
    };
    ensure!(
        value.get("schema").and_then(Value::as_str) == Some(NAME),
        "JSON, but no report of mvpmu's image"
    );
    let version = value.get("version").and_then(Value::as_u64);
    let version = version.context("a report without a version")?;
    ensure!(
        version == u64::from(VERSION),
        "a report of version {version}, and this program knows {VERSION}: use the mvpmu-report that came with its image"
    );
    serde_json::from_value(value).context("a report with an error in it")
}

/// The report as text of a file.
pub fn json(report: &Report) -> Result<String> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    fn error(text: &str) -> String {
        format!("{:#}", parse(text).expect_err("it is refused"))
    }

    #[test]
    fn what_is_written_can_be_read() {
        let report = reference::amd();
        assert_eq!(
            parse(&json(&report).expect("JSON")).expect("a report"),
            report
        );
    }

    // Seen to fail when the version is not looked at.
    #[test]
    fn what_is_no_report_is_refused_with_the_reason() {
        let text = json(&reference::amd()).expect("JSON");
        assert!(error(&text[..text.len() / 2]).contains("cut off after"));
        assert!(error("").contains("it is empty"));
        assert!(error("CPU  AMD").contains("no report: expected value at line 1"));
        assert!(error("{\"status\": 0}").contains("no report of mvpmu's image"));
        let newer = text.replace(
            "\"version\": 1,\n  \"verdict\"",
            "\"version\": 2,\n  \"verdict\"",
        );
        assert!(error(&newer).contains("a report of version 2"));
        let without = text.replace("\"findings\"", "\"found\"");
        assert!(error(&without).contains("a report with an error in it: unknown field `found`"));
    }
}
