// SPDX-License-Identifier: GPL-2.0

//! What is written is read by a parser of the format, as its specification has it:
//! https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md

use std::collections::BTreeMap;

use super::*;
use crate::recorded;

/// A family as it is read.
#[derive(Debug, Default)]
struct Read {
    kind: String,
    unit: Option<String>,
    help: String,
    samples: BTreeMap<String, f64>,
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    chars.next().is_some_and(first) && chars.all(|c| first(c) || c.is_ascii_digit())
}

/// Labels: `name="value",...}` with the rest behind it.
fn labels(mut text: &str) -> Result<(BTreeMap<String, String>, &str), String> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, rest) = text.split_once("=\"").ok_or("no value")?;
        if !is_name(name) || name.contains(':') {
            return Err(format!("label {name}"));
        }
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next() {
                Some((at, '"')) => break at + 1,
                Some((_, '\\')) => value.push(match chars.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, c @ ('"' | '\\'))) => c,
                    c => return Err(format!("escape {c:?}")),
                }),
                Some((_, '\n')) | None => return Err("no end".to_owned()),
                Some((_, c)) => value.push(c),
            }
        };
        if labels.insert(name.to_owned(), value).is_some() {
            return Err(format!("label {name} twice"));
        }
        match rest[end..].split_at_checked(1) {
            Some((",", rest)) => text = rest,
            Some(("}", rest)) => return Ok((labels, rest)),
            _ => return Err("neither , nor }".to_owned()),
        }
    }
}

fn sample(line: &str, name: &str, family: &mut Read) -> Result<(), String> {
    let suffix = if family.kind == "counter" {
        "_total"
    } else {
        ""
    };
    let rest = line
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix(suffix))
        .ok_or_else(|| format!("not of family {name}: {line}"))?;
    let rest = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?.1,
        None => rest,
    };
    let value = rest.strip_prefix(' ').ok_or_else(|| line.to_owned())?;
    let value: f64 = value.parse().map_err(|_| line.to_owned())?;
    let key = line.rsplit_once(' ').map_or(line, |(key, _)| key);
    match family.samples.insert(key.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(format!("twice: {line}")),
    }
}

fn parse(text: &str) -> Result<BTreeMap<String, Read>, String> {
    let text = text.strip_suffix("# EOF\n").ok_or("no end")?;
    let mut families: BTreeMap<String, Read> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            let family = families.get_mut(&name).ok_or("a sample without a family")?;
            sample(line, &name, family)?;
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (Some(what), Some(of), Some(rest)) = (words.next(), words.next(), words.next()) else {
            return Err(line.to_owned());
        };
        if what == "TYPE" {
            // Those that the textfile collector knows, too.
            if !is_name(of) || !["counter", "gauge"].contains(&rest) {
                return Err(line.to_owned());
            }
            name = of.to_owned();
            let family = Read {
                kind: rest.to_owned(),
                ..Read::default()
            };
            if families.insert(name.clone(), family).is_some() {
                return Err(format!("a family twice: {name}"));
            }
            continue;
        }
        let family = families.get_mut(&name).ok_or("no type")?;
        if of != name || !family.samples.is_empty() {
            return Err(line.to_owned());
        }
        match what {
            "UNIT" if name.ends_with(&format!("_{rest}")) => family.unit = Some(rest.to_owned()),
            "HELP" => family.help = rest.to_owned(),
            _ => return Err(line.to_owned()),
        }
    }
    Ok(families)
}

fn recorded_metrics() -> (String, Vec<Row>) {
    let (_, second) = recorded::samples();
    let rows = crate::row::rows(&second, None, &recorded::PRICES);
    (text(&second, &rows), rows)
}

#[test]
fn it_is_openmetrics_with_each_count_of_each_vcpu() {
    let (text, rows) = recorded_metrics();
    let families = parse(&text).expect("it is OpenMetrics");
    for (name, family) in &families {
        assert!(
            !family.help.is_empty() && !family.samples.is_empty(),
            "{name}"
        );
        assert!(!name.ends_with("_total"), "{name}");
    }
    let row = &rows[0];
    let (guest, pid, vm, vcpu) = (&row.guest, row.pid, row.vm, row.id);
    let labels = format!("guest=\"{guest}\",pid=\"{pid}\",vm=\"{vm}\",vcpu=\"{vcpu}\"");
    for (name, kind, _, value) in row.counts.each() {
        let (family, key, value) = match kind {
            Kind::Event => {
                let family = format!("mvpmu_vcpu_{name}");
                let key = format!("{family}_total{{{labels}}}");
                (family, key, value as f64)
            }
            Kind::Now => {
                let family = format!("mvpmu_vcpu_{name}");
                let key = format!("{family}{{{labels}}}");
                (family, key, value as f64)
            }
            Kind::Time => {
                let state = &name["time_".len()..name.len() - "_us".len()];
                let family = "mvpmu_vcpu_time_seconds".to_owned();
                let key = format!("{family}_total{{{labels},state=\"{state}\"}}");
                (family, key, value as f64 / 1e6)
            }
        };
        let found = families[&family].samples.get(&key);
        assert_eq!(found, Some(&value), "{key}");
    }
    assert_eq!(
        families["mvpmu_vcpu_time_seconds"].unit.as_deref(),
        Some("seconds")
    );
    assert_eq!(families["mvpmu_vms"].samples["mvpmu_vms"], 3.0);
}

#[test]
fn a_guest_may_have_any_name() {
    let (_, mut second) = recorded::samples();
    second.vms[0].name = "a\"b\\c\nd} 1".to_owned();
    let rows = crate::row::rows(&second, None, &recorded::PRICES);
    let text = text(&second, &rows);
    assert!(text.contains(r#"guest="a\"b\\c\nd} 1""#));
    parse(&text).expect("it is OpenMetrics");
}

#[test]
fn a_host_without_guests_has_metrics_of_its_own() {
    let (_, mut second) = recorded::samples();
    second.vms.clear();
    let families = parse(&text(&second, &[])).expect("it is OpenMetrics");
    assert!(families.contains_key("mvpmu_loads"));
    assert!(!families.keys().any(|name| name.starts_with("mvpmu_vcpu_")));
}

// The parser has to see what it is there for.
#[test]
fn what_is_not_openmetrics_is_refused() {
    let (good, _) = recorded_metrics();
    assert!(parse(&good).is_ok());
    for (from, to) in [
        ("# EOF\n", ""),
        ("# TYPE mvpmu_loads counter", "# TYPE mvpmu_loads info"),
        ("# TYPE mvpmu_loads counter", "# TYPE mvpmu-loads counter"),
        ("mvpmu_loads_total ", "mvpmu_loads "),
        ("# HELP mvpmu_loads ", "# HELP mvpmu_puts "),
        (
            "# UNIT mvpmu_time_seconds seconds",
            "# UNIT mvpmu_time_seconds minutes",
        ),
        ("# TYPE mvpmu_puts counter", "# TYPE mvpmu_loads counter"),
        ("vcpu=\"0\"", "vm=\"0\""),
        ("mvpmu_vms 3", "mvpmu_vms three"),
    ] {
        assert!(good.contains(from), "{from}");
        assert!(parse(&good.replace(from, to)).is_err(), "{from}");
    }
}
