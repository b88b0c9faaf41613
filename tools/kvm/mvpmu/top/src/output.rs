// SPDX-License-Identifier: GPL-2.0

//! Where a reading goes.

use std::fs;
use std::fs::File;
use std::io;
use std::io::ErrorKind;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process;

use anyhow::Context;
use anyhow::Result;

/// Writes `text` to the file, or to standard output.
pub fn write(text: &str, file: Option<&Path>) -> Result<()> {
    match file {
        Some(path) => replace(path, text).with_context(|| path.display().to_string()),
        None => match io::stdout().write_all(text.as_bytes()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            result => result.context("standard output"),
        },
    }
}

/// Who reads the file sees the old text or the new one, and nothing else stays.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", process::id()));
    let new = PathBuf::from(name);
    let result = File::create(&new)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, path));
    if result.is_err() {
        let _ = fs::remove_file(&new);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvpmu_host::fixture::Host;

    #[test]
    fn a_file_is_replaced_whole_or_stays() {
        let host = Host::new("output");
        let path = host.root().path("/metrics.prom");
        host.file("/metrics.prom", "old");
        replace(&path, "new").expect("there is room");
        assert_eq!(host.root().value("/metrics.prom").as_deref(), Some("new"));

        host.file("/directory/in/the/way", "");
        assert!(replace(&host.root().path("/directory"), "new").is_err());
        let names = host.root().names("/").expect("it is there");
        assert_eq!(names, ["directory", "metrics.prom"]);

        let error =
            write("new", Some(&host.root().path("/none/at/all"))).expect_err("no such place");
        assert!(format!("{error:#}").contains("none/at/all: No such file"));
    }
}
