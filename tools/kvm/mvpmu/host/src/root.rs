// SPDX-License-Identifier: GPL-2.0

//! Files of the host, below a directory.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

/// The directory that takes the place of `/`: that of a container's host, a chroot, or a recording.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// The host below `directory`.
    pub fn new(directory: &Path) -> Self {
        Root(directory.to_owned())
    }

    /// Where the file `path`, which begins with `/`, is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The whole file, whatever its bytes are.
    pub fn bytes(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(path))
    }

    /// The whole file.
    pub fn read(&self, path: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(path)?).into_owned())
    }

    /// What is in the file without the white space around; nothing if it cannot be read.
    pub fn value(&self, path: &str) -> Option<String> {
        Some(self.read(path).ok()?.trim().to_owned())
    }

    /// The number in the file.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.value(path)?.parse().ok()
    }

    /// The names in a directory, in order.
    pub fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(directory))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Whether the file exists, as far as one may know.
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// What a symbolic link says.
    pub fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.to_string_lossy().into_owned())
    }
}
