// SPDX-License-Identifier: GPL-2.0

//! On a real terminal, a pseudo one: the program draws, and leaves it as it was.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use mvpmu_host::fixture::Host;
use rustix::fs;
use rustix::fs::inotify;
use rustix::io;
use rustix::process::kill_process;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::pty;
use rustix::pty::OpenptFlags;
use rustix::termios;
use rustix::termios::Termios;
use rustix::termios::Winsize;

const ENTER_SCREEN: &str = "\x1b[?1049h";
const LEAVE_SCREEN: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// Width and height of the usual terminal.
const SIZE: (usize, usize) = (140, 30);

/// The screen after all that was written: of the sequences only those that move and clear matter.
fn screen(written: &str, (width, height): (usize, usize)) -> String {
    let mut cells = vec![vec![' '; width]; height];
    let (mut row, mut column) = (0, 0);
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        if c != '\x1b' {
            if let Some(cell) = cells.get_mut(row).and_then(|row| row.get_mut(column)) {
                *cell = c;
            }
            column += 1;
            continue;
        }
        if chars.next() != Some('[') {
            continue;
        }
        let mut parameters = String::new();
        let end = chars.by_ref().find(|&c| {
            let is_end = ('@'..='~').contains(&c);
            if !is_end {
                parameters.push(c);
            }
            is_end
        });
        match end {
            Some('H') => {
                let mut numbers = parameters.split(';').map(|n| n.parse().unwrap_or(1));
                row = numbers.next().unwrap_or(1) - 1;
                column = numbers.next().unwrap_or(1) - 1;
            }
            Some('J') => cells = vec![vec![' '; width]; height],
            _ => {}
        }
    }
    let lines: Vec<_> = cells.into_iter().map(String::from_iter).collect();
    lines.join("\n")
}

/// What comes from the terminal, piece by piece.
fn output_of(mut terminal: File) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length) = terminal.read(&mut bytes) {
            if sender.send(bytes[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// How long a program that works may be silent on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(120);

/// The host of the first reading.
fn recorded(name: &str) -> Host {
    let host = Host::new(name);
    host.empty("/sys/module/mvpmu");
    host.replay(include_str!("../recorded/first"));
    host
}

/// The program on a terminal.
struct Session {
    host: Host,
    size: (usize, usize),
    terminal: File,
    output: Receiver<Vec<u8>>,
    /// Ours of the other end, so that it stays when the program has ended.
    line: OwnedFd,
    before: Termios,
    child: Child,
    seen: Vec<u8>,
}

impl Session {
    fn start(host: Host, size: (usize, usize), arguments: &[&str]) -> Self {
        let terminal = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        pty::grantpt(&terminal).expect("it is ours");
        pty::unlockpt(&terminal).expect("it is ours");
        let name = pty::ptsname(&terminal, Vec::new()).expect("it has a name");
        let line: OwnedFd = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().expect("it is ASCII"))
            .expect("its other end")
            .into();
        let window = Winsize {
            ws_row: size.1 as u16,
            ws_col: size.0 as u16,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        termios::tcsetwinsize(&line, window).expect("it has a size");
        let before = termios::tcgetattr(&line).expect("it has attributes");
        let end = || Stdio::from(line.try_clone().expect("a descriptor"));
        let child = Command::new(env!("CARGO_BIN_EXE_mvpmu-top"))
            .arg("--root")
            .arg(host.directory())
            .args(arguments)
            .env("TERM", "xterm")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("the program");
        let terminal = File::from(terminal);
        let output = output_of(terminal.try_clone().expect("a descriptor"));
        Session {
            host,
            size,
            terminal,
            output,
            line,
            before,
            child,
            seen: Vec::new(),
        }
    }

    /// Takes what the program writes until this is so.
    fn wait_until(&mut self, so: impl Fn(&str) -> bool) {
        while !so(&String::from_utf8_lossy(&self.seen)) {
            let bytes = self.output.recv_timeout(LIMIT).unwrap_or_else(|_| {
                let _ = self.child.kill();
                panic!("nothing more after:\n{}", self.screen());
            });
            self.seen.extend_from_slice(&bytes);
        }
    }

    /// What is on the screen.
    fn screen(&self) -> String {
        screen(&String::from_utf8_lossy(&self.seen), self.size)
    }

    /// Until the program has written this sequence.
    fn wait_for(&mut self, sequence: &str) {
        self.wait_until(|seen| seen.contains(sequence));
    }

    /// Until this stands on the screen.
    fn wait_to_see(&mut self, text: &str) {
        let size = self.size;
        self.wait_until(|seen| screen(seen, size).contains(text));
    }

    fn type_keys(&mut self, keys: &str) {
        self.terminal
            .write_all(keys.as_bytes())
            .expect("it is there");
    }

    /// The program has ended by itself, and the terminal is as it was.
    fn ends(mut self) {
        self.wait_for(LEAVE_SCREEN);
        self.wait_for(SHOW_CURSOR);
        let status = self.child.wait().expect("it was started");
        assert!(status.success(), "{status}");
        let after = termios::tcgetattr(&self.line).expect("it has attributes");
        assert_eq!(after.input_modes, self.before.input_modes);
        assert_eq!(after.output_modes, self.before.output_modes);
        assert_eq!(after.control_modes, self.before.control_modes);
        assert_eq!(after.local_modes, self.before.local_modes);
    }
}

fn drawing(name: &str) -> Session {
    let mut session = Session::start(recorded(name), SIZE, &["--interval", "0.1"]);
    session.wait_for(ENTER_SCREEN);
    session.wait_to_see("mvpmu-top: intel");
    let now = termios::tcgetattr(&session.line).expect("it has attributes");
    assert_ne!(now.local_modes, session.before.local_modes);
    session
}

#[test]
fn q_restores_the_terminal() {
    let mut session = drawing("terminal-q");
    session.type_keys("q");
    session.ends();
}

#[test]
fn control_c_restores_the_terminal_also_in_a_filter() {
    let mut session = drawing("terminal-c");
    session.type_keys("/bench\x03");
    session.ends();
}

#[test]
fn a_signal_restores_the_terminal() {
    let session = drawing("terminal-signal");
    let pid = Pid::from_child(&session.child);
    kill_process(pid, Signal::TERM).expect("it runs");
    session.ends();
}

#[test]
fn guests_come_and_go_while_it_runs() {
    let mut session = drawing("terminal-guests");
    session.wait_to_see("3 VMs, 3 vCPUs");
    let directory = "/sys/kernel/debug/mvpmu";
    let root = session.host.root();
    for name in root.names(directory).expect("it is there") {
        if name.contains('-') {
            session.host.remove(&format!("{directory}/{name}"));
        }
    }
    session.wait_to_see("no virtual machine with a PMU");
    session.host.replay(include_str!("../recorded/second"));
    session.wait_to_see("contention: ");
    session.type_keys("q");
    session.ends();
}

#[test]
fn a_module_that_goes_is_said() {
    let mut session = drawing("terminal-gone");
    session.host.remove("/sys/kernel/debug/mvpmu");
    session.wait_to_see("is another debugfs mounted there?");
    session.host.remove("/sys/module/mvpmu");
    session.wait_to_see("mvpmu is not loaded: modprobe");
    session.type_keys("q");
    session.ends();
}

/// The file of a vCPU that is in memory, as debugfs has it: each time that it is read, time has passed.
fn lets_time_pass(host: &Host, path: &str) {
    const KEY: &str = "time_active_us: ";
    let now = host.root().read(path).expect("it is recorded");
    let (before, time) = now.split_once(KEY).expect("it has a time");
    let (time, after) = time.split_once('\n').expect("it is a line");
    let time: u64 = time.parse().expect("it is a number");
    let later = format!("{before}{KEY}{}\n{after}", time + 1);

    host.remove(path);
    let file = host.root().path(path);
    fs::mkfifoat(fs::CWD, &file, fs::Mode::RUSR | fs::Mode::WUSR).expect("a pipe");
    let events = inotify::init(inotify::CreateFlags::empty()).expect("events of files");
    inotify::add_watch(&events, &file, inotify::WatchFlags::CLOSE_NOWRITE)
        .expect("those of the pipe");
    thread::spawn(move || {
        for text in [now, later].iter().cycle() {
            // It can be opened when it is read, and is read when that has closed it.
            if std::fs::write(&file, text).is_err() || io::read(&events, &mut [0; 64]).is_err() {
                break;
            }
        }
    });
}

/// The screen that README.md shows: its block of text that begins with the program's name.
fn shown_screen() -> Option<&'static str> {
    let readme = include_str!("../../../../../README.md");
    let blocks = readme.split("\n```").skip(1).step_by(2);
    let mut texts = blocks.filter_map(|block| block.split_once('\n'));
    texts.find_map(|(_, text)| text.starts_with("mvpmu-top:").then_some(text))
}

// Counts, not rates: these are what was recorded, whenever it is read. The last line is drawn last.
#[test]
fn the_screen_in_the_readme_is_that_of_the_program() {
    let shown = shown_screen().expect("README.md shows a screen");
    let size = (124, shown.lines().count());
    let host = recorded("terminal-readme");
    for vcpu in ["50-1", "51-2", "51-3"] {
        lets_time_pass(&host, &format!("/sys/kernel/debug/mvpmu/{vcpu}/vcpu0"));
    }
    let mut session = Session::start(host, size, &["--totals"]);
    session.wait_for(ENTER_SCREEN);
    session.wait_to_see("q quit  p pause  / filter  < > sort  r reverse  t totals  h help");
    let lines: Vec<_> = session
        .screen()
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    assert_eq!(lines.join("\n"), shown);
    session.type_keys("q");
    session.ends();
}
