// SPDX-License-Identifier: GPL-2.0

//! Boots L1 with a job, and fetches what it left.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use anyhow::Context;
use anyhow::Result;

use crate::image;
use crate::job::Job;
use crate::machine::Boot;
use crate::machine::Files;
use crate::machine::CLEAN_END;
use crate::paths;

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The job has ended with this status.
    Job(i32),
    /// The time was up.
    TimedOut,
    /// The machine ended by itself: a panic, a triple fault, an error of the
    /// machine, or a job without a status.
    Died(String),
}

/// What a run left.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Everything the console showed.
    pub console: PathBuf,
    /// The files the job left in /out.
    pub out: PathBuf,
    /// How long it took.
    pub time: Duration,
}

impl Outcome {
    /// A file that the job left.
    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.out.join(name);
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What is wrong with the run as a whole, if anything.
    pub fn problem(&self) -> Option<String> {
        let console = self.console.display();
        match &self.end {
            End::Job(0) => None,
            End::Job(status) => Some(format!("the job ended with status {status}; see {console}")),
            End::TimedOut => Some(format!(
                "no end after {} s; see {console}",
                self.time.as_secs()
            )),
            End::Died(how) => Some(format!("{how}; see {console}")),
        }
    }
}

/// Boots a machine with a job. All files go to `directory`, which is emptied
/// first; with `echo` the console is shown too.
pub fn run(
    boot: &Boot,
    job: &Job,
    directory: &Path,
    limit: Duration,
    echo: bool,
) -> Result<Outcome> {
    let begin = Instant::now();
    let files = prepare(boot, Some(job), directory)?;
    let console = directory.join("console");
    let out = directory.join("out");

    let mut command = boot.machine.command(boot, &files);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(File::create(directory.join("machine.log"))?));
    let mut child = spawn(&mut command)?;
    let ended = stream(&mut child, File::create(&console)?, echo);

    // The console is closed when the machine ends.
    let status = match ended.recv_timeout(limit) {
        Err(RecvTimeoutError::Timeout) => {
            child.kill()?;
            child.wait()?;
            None
        }
        _ => Some(child.wait()?),
    };
    fs::create_dir(&out)?;
    unpack(&files.data, &out)?;
    let end = match status {
        None => End::TimedOut,
        Some(status) => end(status, &out, directory),
    };
    fs::remove_file(&files.initrd)?;
    fs::remove_file(&files.data)?;
    Ok(Outcome {
        end,
        console,
        out,
        time: begin.elapsed(),
    })
}

/// Boots a machine for a person: no job, the terminal is the console.
pub fn interactive(boot: &Boot, directory: &Path) -> Result<()> {
    let files = prepare(boot, None, directory)?;
    let mut command = boot.machine.command(boot, &files);
    command.stderr(Stdio::from(File::create(directory.join("machine.log"))?));
    let status = spawn(&mut command)?.wait()?;
    match status.code() {
        Some(0 | CLEAN_END) => Ok(()),
        _ => bail!(
            "the machine ended with {status}; see {}",
            directory.join("machine.log").display()
        ),
    }
}

fn prepare(boot: &Boot, job: Option<&Job>, directory: &Path) -> Result<Files> {
    paths::require(&[
        &boot.kernel.product("bzImage"),
        &boot.machine.needs(),
        Path::new(paths::SELFTESTS),
    ])?;
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir_all(directory)?,
    }
    let files = Files {
        initrd: directory.join("initrd"),
        data: directory.join("data.tar"),
        stats: directory.join("stats"),
    };
    image::write(boot.kernel, job, &files.initrd)?;
    File::create(&files.data)?;
    Ok(files)
}

/// Starts a machine that ends with us, however we end.
fn spawn(command: &mut Command) -> Result<Child> {
    // SAFETY: prctl() is async-signal-safe and touches no memory here.
    unsafe {
        command.pre_exec(
            || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
        );
    }
    command
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))
}

/// Copies the console to a file and perhaps to stdout. The receiver gets
/// something, or is cut off, when the console is closed.
fn stream(child: &mut Child, mut log: File, echo: bool) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    let mut console = child.stdout.take();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Some(Ok(length @ 1..)) = console.as_mut().map(|from| from.read(&mut buffer)) {
            if log.write_all(&buffer[..length]).is_err() {
                break;
            }
            if echo {
                // A closed stdout does not end the run.
                let _ = io::stdout().write_all(&buffer[..length]);
                let _ = io::stdout().flush();
            }
        }
        let _ = sender.send(());
    });
    receiver
}

fn unpack(data: &Path, out: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(File::open(data)?);
    archive.set_preserve_permissions(false);
    for entry in archive.entries()? {
        // Half an archive, when L1 died while it sent: keep what there is.
        let Ok(mut entry) = entry else { break };
        if entry.unpack_in(out).is_err() {
            break;
        }
    }
    Ok(())
}

fn end(status: ExitStatus, out: &Path, directory: &Path) -> End {
    if status.code() != Some(CLEAN_END) {
        let log = fs::read_to_string(directory.join("machine.log")).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        return End::Died(format!("the machine ended with {status} {last}"));
    }
    match fs::read_to_string(out.join("status")) {
        Ok(text) => match text.trim().parse() {
            Ok(status) => End::Job(status),
            Err(_) => End::Died(format!("the job's status is '{}'", text.trim())),
        },
        Err(_) => End::Died("the job left no status".to_owned()),
    }
}
