// SPDX-License-Identifier: GPL-2.0

//! The consoles: what is said appears on each, and each may answer.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;

/// Those that the kernel writes to: screen and serial port, as far as there are.
pub struct Consoles {
    outputs: Vec<File>,
    names: Vec<String>,
}

impl Consoles {
    /// Opens them.
    pub fn open() -> Self {
        let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let mut names: Vec<_> = active.split_whitespace().map(str::to_owned).collect();
        if names.is_empty() {
            names.push("console".to_owned());
        }
        let open = |name: &String| OpenOptions::new().write(true).open(path(name)).ok();
        let outputs = names.iter().filter_map(open).collect();
        Consoles { outputs, names }
    }

    /// Says something, without an end of line.
    pub fn say(&mut self, text: &str) {
        for output in &mut self.outputs {
            // One that does not work does not keep the others from it.
            let _ = output.write_all(text.as_bytes());
        }
    }

    /// Says a line.
    pub fn line(&mut self, text: &str) {
        self.say(&format!("{text}\n"));
    }

    /// Lines that are typed from now on.
    pub fn answers(&self) -> Receiver<String> {
        let (sender, answers) = mpsc::channel();
        for name in &self.names {
            let Ok(input) = File::open(path(name)) else {
                continue;
            };
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(input).lines() {
                    let Ok(line) = line else { break };
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        answers
    }
}

fn path(name: &str) -> String {
    format!("/dev/{name}")
}
