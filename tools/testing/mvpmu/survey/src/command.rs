// SPDX-License-Identifier: GPL-2.0

//! Programs that may take so long and no longer.

use std::fs;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use rustix::process::kill_process_group;
use rustix::process::Pid;
use rustix::process::Signal;

/// How long a killed program may take to be gone. What hangs in the kernel is left there.
const GRACE: Duration = Duration::from_secs(5);

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this status; none, if by a signal.
    Exit(Option<i32>),
    /// Its time was up.
    Killed,
    /// Its time was up, and it could not be killed.
    Stuck,
}

/// What came of a program.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// What it said, on both ways out.
    pub output: String,
    /// How long it took.
    pub time: Duration,
}

impl Ran {
    /// Whether it says that all is well.
    pub fn succeeded(&self) -> bool {
        self.end == End::Exit(Some(0))
    }

    /// What it said last, or how it ended.
    pub fn why(&self) -> Vec<String> {
        let lines: Vec<_> = self.output.lines().map(str::to_owned).collect();
        let mut last = lines[lines.len().saturating_sub(20)..].to_vec();
        last.push(match self.end {
            End::Exit(Some(status)) => format!("exit status {status}"),
            End::Exit(None) => "ended by a signal".to_owned(),
            End::Killed => format!("no end after {} s", self.time.as_secs()),
            End::Stuck => format!(
                "no end after {} s, and it cannot be killed",
                self.time.as_secs()
            ),
        });
        last
    }
}

/// Runs a program. All that it has started ends with it.
pub fn run(words: &[&str], limit: Duration, log: &Path) -> Result<Ran> {
    let begin = Instant::now();
    let (program, arguments) = words.split_first().context("no program")?;
    // A file, as a pipe does not end before the last process that could write to it.
    let out = File::create(log)?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .process_group(0)
        .spawn()
        .with_context(|| (*program).to_owned())?;
    let group = Pid::from_child(&child);
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens any more if it was stuck.
        let _ = sender.send(child.wait());
    });
    let status = ended.recv_timeout(limit);
    // Also when it has ended by itself. If nothing is left, that fails.
    let _ = kill_process_group(group, Signal::KILL);
    let end = match status {
        Ok(status) => End::Exit(status?.code()),
        Err(_) => match ended.recv_timeout(GRACE) {
            Ok(_) => End::Killed,
            Err(_) => End::Stuck,
        },
    };
    Ok(Ran {
        end,
        output: String::from_utf8_lossy(&fs::read(log)?).into_owned(),
        time: begin.elapsed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Ran {
        let name = format!("mvpmu-survey-{:?}", thread::current().id());
        let log = std::env::temp_dir().join(name);
        run(&["/bin/sh", "-c", script], limit, &log).expect("sh runs")
    }

    // Seen to fail when what it says is not kept.
    #[test]
    fn a_program_that_does_not_end_is_killed_with_its_children() {
        let ran = sh("echo begin; sleep 1000 & wait", Duration::from_millis(200));
        assert_eq!(ran.end, End::Killed);
        assert_eq!(ran.output, "begin\n");
        assert!(ran
            .why()
            .iter()
            .any(|line| line.starts_with("no end after")));
    }

    // Seen to fail when only the program itself is killed: the child says something then.
    #[test]
    fn nothing_is_left_of_a_program_that_ends() {
        let pipe = std::env::temp_dir().join(format!("mvpmu-survey-{}", std::process::id()));
        let pipe = pipe.display().to_string();
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
        let reader = {
            let pipe = pipe.clone();
            thread::spawn(move || fs::read_to_string(pipe))
        };
        // The end of the pipe is when nobody can write to it any more.
        let ran = sh(
            &format!("exec 3>{pipe}; (sleep 30; echo alive >&3) &"),
            Duration::from_secs(600),
        );
        assert!(ran.succeeded());
        let said = reader.join().expect("the reader ends");
        assert_eq!(said.expect("the pipe can be read"), "");
        fs::remove_file(pipe).expect("it is there");
    }

    #[test]
    fn the_status_is_that_of_the_program() {
        assert_eq!(
            sh("exit 7", Duration::from_secs(60)).end,
            End::Exit(Some(7))
        );
        assert_eq!(
            sh("kill -9 $$", Duration::from_secs(60)).end,
            End::Exit(None)
        );
    }
}
