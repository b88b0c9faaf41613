// SPDX-License-Identifier: GPL-2.0

//! Tests that need no machine: of the sources, of the series for Linux, and of
//! the programs around.

mod in_step;
mod symptoms;

use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;

use crate::paths;
use crate::paths::Kernel;
use crate::tap;
use crate::tap::Case;
use crate::tap::Verdict;

/// The machines and the runner, and the tools for hosts.
const MACHINES: &str = "tools/testing/mvpmu/Cargo.toml";
const HOST_TOOLS: &str = "tools/kvm/mvpmu/Cargo.toml";
const WORKSPACES: [&str; 2] = [MACHINES, HOST_TOOLS];

/// What make has found before the runner was started: TAP files.
const BY_MAKE: &str = "build/series";

const APPLY_TEST: &str = "tools/testing/mvpmu/scripts/apply-test.sh";
const PACKAGES_TEST: &str = "tools/testing/mvpmu/scripts/deb-test.sh";
const OPTIONS_TEST: &str = "tools/testing/mvpmu/scripts/options-test.sh";
const EACH_PATCH_TEST: &str = "tools/testing/mvpmu/scripts/each-patch.sh";
const DOCS_TEST: &str = "tools/testing/mvpmu/scripts/docs-test.sh";

/// A command that must succeed; its output goes to `directory`.
fn succeeds(directory: &Path, name: &str, program: &str, arguments: &[&str]) -> Result<Case> {
    let log = directory.join(format!("{}.log", name.replace(['/', ' '], "-")));
    let out = File::create(&log)?;
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .status()
        .with_context(|| program.to_owned())?;
    Ok(Case::new(name, status.success(), || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }))
}

/// All files of the checkout, without what is built.
fn files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(Path::new(".").join(&directory))? {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            let name = entry.file_name();
            let ours = !matches!(path.to_str(), Some("build" | ".config" | ".config.old"));
            if name == ".git" || name == "target" || !ours {
                continue;
            }
            if entry.file_type()?.is_dir() {
                directories.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or("")
}

/// A licence in every file, but those that tools write, or read as a whole.
fn licences(files: &[PathBuf]) -> Case {
    let exempt = |path: &Path| {
        matches!(
            extension(path),
            "patch" | "lock" | "sha256" | "svg" | "png" | "json"
        ) || path.starts_with("Documentation/ABI")
            || ["LICENSE", "COPYING", "settings"]
                .iter()
                .any(|name| path.ends_with(name))
    };
    let missing: Vec<_> = files
        .iter()
        .filter(|path| !exempt(path))
        .filter(|path| {
            let text = text(path);
            !text
                .lines()
                .take(5)
                .any(|line| line.contains("SPDX-License-Identifier:"))
        })
        .map(|path| path.display().to_string())
        .collect();
    Case::new("every file names its licence", missing.is_empty(), || {
        missing.join("\n")
    })
}

/// The commands that `text` shows, each at the beginning of a line, exist.
fn commands(name: &str, text: &str) -> Result<Case> {
    let mut unknown = Vec::new();
    for line in text.lines().map(str::trim) {
        let line = line.strip_prefix("$ ").unwrap_or(line);
        // In `make help`, two spaces are before the explanation.
        let command = line.split("  ").next().unwrap_or_default();
        let Some(arguments) = command.strip_prefix("make ") else {
            continue;
        };
        let arguments = arguments.split('#').next().unwrap_or_default();
        let make = format!("make -n {arguments}");
        if !Command::new("sh")
            .args(["-c", &make])
            .output()?
            .status
            .success()
        {
            unknown.push(line.to_owned());
        }
    }
    Ok(Case::new(name, unknown.is_empty(), || unknown.join("\n")))
}

/// The commands that README.md and `make help` show exist.
fn shown_commands() -> Result<[Case; 2]> {
    let readme = fs::read_to_string("README.md").context("README.md")?;
    let help = Command::new("make").arg("help").output()?.stdout;
    Ok([
        commands("the commands of README.md exist", &readme)?,
        commands(
            "the commands of make help exist",
            &String::from_utf8_lossy(&help),
        )?,
    ])
}

/// Format, lints and licences of everything.
pub fn sources(directory: &Path) -> Result<Vec<Case>> {
    let files = files()?;
    let with = |wanted: &dyn Fn(&Path) -> bool| -> Vec<&str> {
        files
            .iter()
            .filter(|path| wanted(path))
            .filter_map(|path| path.to_str())
            .collect()
    };
    let is_shell = |path: &Path| {
        let text = text(path);
        text.starts_with("#!/bin/sh")
            || extension(path) == "sh" && text.contains("shellcheck shell=sh")
    };
    let is_kernel_rust = |path: &Path| {
        extension(path) == "rs" && (path.starts_with("rust") || path.starts_with("drivers"))
    };
    let linux = linux()?;
    let config = linux.join(".rustfmt.toml");

    let mut shellcheck = vec!["-x", "-s", "sh"];
    shellcheck.extend(with(&is_shell));
    let mut rustfmt = vec!["--check", "--edition", "2021", "--config-path"];
    rustfmt.extend(config.to_str());
    rustfmt.extend(with(&is_kernel_rust));

    let [readme, help] = shown_commands()?;
    let mut cases = vec![
        licences(&files),
        readme,
        help,
        symptoms::check(&files)?,
        succeeds(directory, "shellcheck", "shellcheck", &shellcheck)?,
        succeeds(directory, "rustfmt of the kernel code", "rustfmt", &rustfmt)?,
    ];
    for path in WORKSPACES {
        let workspace = ["--manifest-path", path];
        let format = [&["fmt", "--all", "--check"], &workspace[..]].concat();
        let clippy = [
            &["clippy"],
            &workspace[..],
            // So that what runs while things are compiled is built already.
            &["--workspace", "--all-targets", "--locked", "--release"],
            &["--", "-D", "warnings"],
        ]
        .concat();
        cases.push(succeeds(
            directory,
            &format!("rustfmt of {path}"),
            "cargo",
            &format,
        )?);
        cases.push(succeeds(
            directory,
            &format!("clippy of {path}"),
            "cargo",
            &clippy,
        )?);
        cases.push(dependencies(path)?);
    }
    Ok(cases)
}

/// Licences that allow what is linked with code under the GPL, version 2.
const COMPATIBLE: [&str; 8] = [
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "GPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether an SPDX expression leaves a choice that is compatible.
fn is_compatible(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    // "(A OR B) AND C" is as deep as it gets.
    expression.split(" AND ").all(|part| {
        part.trim_matches(['(', ')'])
            .split(" OR ")
            .any(|licence| COMPATIBLE.contains(&licence.trim()))
    })
}

/// The licences of all packages that a workspace is built of: its programs may be given away.
fn dependencies(manifest: &str) -> Result<Case> {
    let output = Command::new("cargo")
        .args(["tree", "--workspace", "--locked", "--prefix", "none"])
        .args(["--edges", "normal,build", "--format", "{l}|{p}"])
        .args(["--manifest-path", manifest])
        .output()
        .context("cargo")?;
    let tree = String::from_utf8_lossy(&output.stdout);
    let packages = tree.lines().filter_map(|line| line.split_once('|'));
    let foreign: Vec<_> = packages
        .clone()
        .filter(|(licence, _)| !is_compatible(licence))
        .map(|(licence, package)| format!("{package}: {licence}"))
        .collect();
    let name = format!("licences of what {manifest} is built of");
    let passed = output.status.success() && packages.count() > 0 && foreign.is_empty();
    Ok(Case::new(&name, passed, || {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("{}\n{errors}", foreign.join("\n"))
    }))
}

/// The Linux source with the series and the overlay, as make has left it.
fn linux() -> Result<PathBuf> {
    let path = fs::read_to_string("build/linux-source").context("build/linux-source")?;
    Ok(path.trim().into())
}

/// What checkpatch says without being right. `KVM_SUB_MODULES` is a list of module names, not an
/// expression; it does not know that `DEFINE_PER_CPU()` defines its second argument. The harness of
/// selftests has types and variants that look like calls; labels of assembly are declared where they
/// are; and perf's page changes beneath who reads it.
const EXCUSED: [(&str, &str); 7] = [
    ("include/trace/events/mvpmu.h", "COMPLEX_MACRO"),
    ("-virt-add-mvpmu.patch", "SPACING,COMPLEX_MACRO"),
    (
        "-perf-Lend-the-PMU-to-a-guest-for-longer-than-a-VM-Ex.patch",
        "EXPORT_SYMBOL",
    ),
    (
        "selftests/mvpmu/host_times_test.c",
        "SPACING,MULTISTATEMENT_MACRO_USE_DO_WHILE",
    ),
    ("selftests/mvpmu/nested_test.c", "AVOID_EXTERNS"),
    ("selftests/mvpmu/preferred_events_test.c", "AVOID_EXTERNS"),
    ("selftests/mvpmu/host_exact_test.c", "VOLATILE"),
];

/// That the series apply, and what checkpatch says of them and of our C code.
pub fn series(directory: &Path) -> Result<Vec<Case>> {
    let mut cases = in_step::test()?;
    for entry in fs::read_dir(BY_MAKE).context(BY_MAKE)? {
        cases.extend(tap::parse(&text(&entry?.path())));
    }
    let linux = linux()?;
    let script = linux.join("scripts/checkpatch.pl");
    let root = format!("--root={}", linux.display());
    let script = script.to_string_lossy();
    // The series lies on nobody's desk yet: no sign-off, no maintainer. Nor is there a history of
    // Linux, in which a commit that is fixed could be looked up: that of the checkout is another.
    let options = [
        "GIT_DIR=none",
        "perl",
        &*script,
        &root,
        "--no-signoff",
        "--show-types",
        "--terse",
        "-q",
    ];
    for path in files()? {
        let name = path.display().to_string();
        let excused = EXCUSED.iter().find(|(file, _)| name.ends_with(file));
        let ignored = format!(
            "FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID,{}",
            excused.map_or("", |(_, types)| types)
        );
        let options = [&options[..], &["--ignore", &ignored]].concat();
        let in_kernel = path.starts_with("arch")
            || path.starts_with("drivers")
            || path.starts_with("include")
            || path.starts_with("rust")
            || path.starts_with("tools/testing/selftests");
        let arguments = match extension(&path) {
            "patch" => [&options[..], &[&name]].concat(),
            "c" | "h" if in_kernel => [&options[..], &["-f", &name]].concat(),
            _ => continue,
        };
        let case = succeeds(directory, &format!("checkpatch {name}"), "env", &arguments)?;
        cases.push(case);
    }
    Ok(cases)
}

/// Runs tests in shell, which leave `directory`/`name`.tap.
fn script(directory: &Path, name: &str, program: &str, arguments: &[&str]) -> Result<Vec<Case>> {
    let log = File::create(directory.join(format!("{name}.log")))?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .with_context(|| program.to_owned())?;
    Ok(tap::parse(&text(&directory.join(format!("{name}.tap")))))
}

/// `make apply`, `make unapply` and `make patches`, for each version of Linux that make has unpacked.
pub fn apply(directory: &Path) -> Result<Vec<Case>> {
    let place = std::path::absolute(directory)?;
    let mut cases = Vec::new();
    for (version, length) in [("7.3", "whole"), ("7.2", "brief")] {
        let arguments = [version, &place.to_string_lossy(), length];
        let results = script(directory, version, APPLY_TEST, &arguments)?;
        cases.extend(results.into_iter().map(|case| Case {
            name: format!("Linux {version}: {}", case.name),
            ..case
        }));
    }
    Ok(cases)
}

/// That Linux compiles and boots after each patch of the series for the version that is built.
pub fn each_patch(directory: &Path) -> Result<Vec<Case>> {
    let version = fs::read_to_string("build/linux-version").context("build/linux-version")?;
    let place = directory.to_string_lossy();
    script(
        directory,
        "each-patch",
        EACH_PATCH_TEST,
        &[version.trim(), &place],
    )
}

/// The options of the build: Kconfig, .config and make.
pub fn options(directory: &Path) -> Result<Vec<Case>> {
    let place = directory.to_string_lossy();
    script(directory, "options", OPTIONS_TEST, &[&place])
}

/// The documentation, as Sphinx and rustdoc see it.
pub fn documentation(directory: &Path) -> Result<Vec<Case>> {
    let place = directory.to_string_lossy();
    script(directory, "docs", DOCS_TEST, &[&place])
}

/// The Debian packages: what is in them, and how they are installed.
pub fn packages(directory: &Path) -> Result<Vec<Case>> {
    let place = directory.to_string_lossy();
    script(directory, "deb", PACKAGES_TEST, &[&place])
}

/// The unit tests of the workspaces, each as a test of its own.
pub fn cargo_test(directory: &Path) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (number, path) in (1..).zip(WORKSPACES) {
        let log = directory.join(format!("cargo-test-{number}.log"));
        cases.extend(tests_of_workspace(path, &log)?);
    }
    Ok(cases)
}

fn tests_of_workspace(path: &str, log: &Path) -> Result<Vec<Case>> {
    // Those of the Intel machine need the CPU core and a kernel.
    let output = Command::new("cargo")
        .args(["test", "--workspace", "--locked", "--release"])
        .args(["--no-fail-fast", "--manifest-path", path])
        .args(["--", "--include-ignored"])
        .env("MVPMU_BOCHS", std::path::absolute(paths::BOCHS)?)
        .env("MVPMU_PT_FLOW", std::path::absolute(paths::PT_FLOW)?)
        .env(
            "MVPMU_KERNEL",
            std::path::absolute(Kernel::Main.product("vmlinux"))?,
        )
        .output()
        .context("cargo")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    fs::write(log, format!("{text}\n{errors}"))?;

    // "test module::name ... ok"
    let mut cases: Vec<Case> = text
        .lines()
        .filter_map(|line| {
            let (name, verdict) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
            Some(match verdict {
                "ok" => Case::passed(name),
                "ignored" => Case {
                    name: name.to_owned(),
                    verdict: Verdict::Skipped("ignored".to_owned()),
                },
                _ => Case::failed(name, format!("see {}", log.display())),
            })
        })
        .collect();
    let failed = |case: &Case| matches!(case.verdict, Verdict::Failed(_));
    if !output.status.success() && !cases.iter().any(failed) {
        let lines: Vec<_> = errors.lines().collect();
        let end = lines[lines.len().saturating_sub(20)..].join("\n");
        cases.push(Case::failed("the tests can be built and run", end));
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when one that fits is enough where all are needed.
    #[test]
    fn a_licence_has_to_leave_a_choice_that_fits() {
        assert!(is_compatible("MIT"));
        assert!(is_compatible("Apache-2.0/MIT"));
        assert!(is_compatible(
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT"
        ));
        assert!(is_compatible("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!is_compatible("Apache-2.0"));
        assert!(!is_compatible("MIT AND Apache-2.0"));
        assert!(!is_compatible("none"));
    }
}
