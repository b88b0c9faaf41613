// SPDX-License-Identifier: GPL-2.0

//! A host made of files, for the tests of the tools.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process;

use crate::Root;

/// A directory that goes with it.
pub struct Host(PathBuf);

impl Host {
    /// An empty one. Each test has a name of its own.
    pub fn new(name: &str) -> Self {
        let name = format!("mvpmu-{}-{name}", process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("there is room in the temporary directory");
        Host(directory)
    }

    /// The files of a recording: each after a line "==> PATH". In the text of command lines, "\0" is
    /// the character.
    pub fn replay(&self, recording: &str) {
        for file in recording.split("==> ").skip(1) {
            let (path, text) = file.split_once('\n').expect("a path ends with its line");
            self.file(path, text.replace("\\0", "\0"));
        }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// As the tools see it.
    pub fn root(&self) -> Root {
        Root::new(&self.0)
    }

    fn place(&self, path: &str) -> PathBuf {
        let path = self.root().path(path);
        let parent = path.parent().expect("it is below the root");
        fs::create_dir_all(parent).expect("there is room in the temporary directory");
        path
    }

    /// A file with this text.
    pub fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        fs::write(self.place(path), text).expect("there is room in the temporary directory");
    }

    /// An empty directory.
    pub fn empty(&self, path: &str) {
        fs::create_dir_all(self.place(path)).expect("there is room in the temporary directory");
    }

    /// A symbolic link.
    pub fn link(&self, path: &str, target: &str) {
        symlink(target, self.place(path)).expect("there is room in the temporary directory");
    }

    /// A file or a directory is gone.
    pub fn remove(&self, path: &str) {
        let path = self.root().path(path);
        if path.is_dir() {
            fs::remove_dir_all(path).expect("it was there");
        } else {
            fs::remove_file(path).expect("it was there");
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
