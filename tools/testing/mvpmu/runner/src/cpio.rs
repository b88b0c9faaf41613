// SPDX-License-Identifier: GPL-2.0

//! Writes initial root file systems: uncompressed cpio archives in the "newc"
//! format, see Documentation/driver-api/early-userspace/buffer-format.rst.
//!
//! Done here rather than by a tool because an ordinary user cannot make the
//! device nodes that such an archive needs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

struct Entry {
    mode: u32,
    device: (u32, u32),
    data: Vec<u8>,
}

/// An archive to be. Everything belongs to root and has no time: the same
/// contents give the same bytes.
#[derive(Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    fn insert(&mut self, path: &str, mode: u32, device: (u32, u32), data: Vec<u8>) {
        let path = path.trim_matches('/');
        for (slash, _) in path.match_indices('/') {
            self.entries
                .entry(path[..slash].to_owned())
                .or_insert(Entry {
                    mode: DIRECTORY,
                    device: (0, 0),
                    data: Vec::new(),
                });
        }
        let entry = Entry { mode, device, data };
        self.entries.insert(path.to_owned(), entry);
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: &str, permissions: u32, data: impl Into<Vec<u8>>) {
        self.insert(path, REGULAR | permissions, (0, 0), data.into());
    }

    /// Adds a copy of the file `from`, executable or not as that is.
    pub fn copy(&mut self, path: &str, from: &Path) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;

        let permissions = fs::metadata(from)?.permissions().mode() & 0o755;
        self.file(path, permissions, fs::read(from)?);
        Ok(())
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.insert(path, SYMLINK, (0, 0), target.into());
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.insert(path, CHARACTER_DEVICE, (major, minor), Vec::new());
    }

    /// Writes the archive.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (inode, (path, entry)) in (1u32..).zip(&self.entries) {
            header(out, inode, path, entry)?;
        }
        let trailer = Entry {
            mode: 0,
            device: (0, 0),
            data: Vec::new(),
        };
        header(out, 0, "TRAILER!!!", &trailer)
    }
}

fn header(out: &mut impl Write, inode: u32, path: &str, entry: &Entry) -> io::Result<()> {
    let size = u32::try_from(entry.data.len()).map_err(io::Error::other)?;
    let name_size = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
    out.write_all(b"070701")?;
    for field in [
        inode,
        entry.mode,
        0, // uid
        0, // gid
        1, // links
        0, // mtime
        size,
        0, // device that holds the file
        0,
        entry.device.0,
        entry.device.1,
        name_size,
        0, // checksum
    ] {
        write!(out, "{field:08x}")?;
    }
    out.write_all(path.as_bytes())?;
    // The header is 110 bytes long; name and data each end on a multiple of 4.
    out.write_all(&[0; 4][..4 - (110 + path.len()) % 4])?;
    out.write_all(&entry.data)?;
    out.write_all(&[0; 3][..entry.data.len().wrapping_neg() % 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(archive: &Archive) -> Vec<u8> {
        let mut out = Vec::new();
        archive.write(&mut out).unwrap();
        out
    }

    // Seen to fail when the parents of a path are left out.
    #[test]
    fn an_archive_has_the_parents_of_every_file_before_it() {
        let mut archive = Archive::default();
        archive.file("/a/b/c", 0o644, "x");
        let names: Vec<_> = archive.entries.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c"]);
    }

    // Seen to fail when the padding of names is one byte short.
    #[test]
    fn headers_names_and_data_are_aligned() {
        for name in ["a", "ab", "abc", "abcd"] {
            for data in ["", "1", "12", "123", "1234"] {
                let mut archive = Archive::default();
                archive.file(name, 0o644, data);
                let out = bytes(&archive);
                assert_eq!(out.len() % 4, 0);
                let first = 110 + name.len() + 1;
                let begin = first.next_multiple_of(4);
                assert_eq!(&out[begin..begin + data.len()], data.as_bytes());
                let trailer = begin + data.len().next_multiple_of(4);
                assert_eq!(&out[trailer..trailer + 6], b"070701");
            }
        }
    }
}
