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
use crate::machine::Pmu;
use crate::machine::CLEAN_END;
use crate::machine::RESET;
use crate::machine_stats::MachineStats;
use crate::oracle;
use crate::oracle::Oracle;
use crate::paths;

/// How many lines of the console are worth a look when a machine did not end.
const LAST_LINES: usize = 20;

/// What QEMU's monitor greets with.
const MONITOR: &str = "monitor - type 'help'";

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
    /// Whether the oracle watched.
    pub watched: bool,
    /// What it has reported.
    pub violations: Option<String>,
}

impl Outcome {
    /// A file that the job left.
    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.out.join(name);
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What the machine has counted.
    pub fn stats(&self) -> Result<MachineStats> {
        MachineStats::read(&self.directory().join("stats"))
    }

    /// The directory with all files of the run.
    pub fn directory(&self) -> &Path {
        self.console.parent().unwrap_or(Path::new(""))
    }

    /// What the console showed last, without what a machine has said after the time was up.
    fn last_lines(&self) -> String {
        let console = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&console);
        let lines: Vec<_> = text
            .lines()
            .map(str::trim_end)
            .take_while(|line| !line.contains(MONITOR))
            .filter(|line| !line.is_empty())
            .collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// What is wrong with the run as a whole, if anything.
    pub fn problem(&self) -> Option<String> {
        let console = self.console.display();
        match &self.end {
            End::Job(0) => None,
            End::Job(status) => Some(format!("the job ended with status {status}; see {console}")),
            End::TimedOut => Some(format!(
                "no end after {} s; see {console}\n{}",
                self.time.as_secs(),
                self.last_lines()
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
    let out = directory.join("out");

    let status = execute(boot, &files, directory, limit, echo)?;
    fs::create_dir(&out)?;
    unpack(&files.data, &out)?;
    let end = match status {
        None => End::TimedOut,
        Some(status) => end(status, &out, directory),
    };
    files.remove(boot)?;
    Ok(Outcome {
        end,
        console: directory.join("console"),
        out,
        time: begin.elapsed(),
        watched: boot.oracle != Oracle::Off && boot.pmu != Pmu::Off,
        violations: oracle::report(directory, boot.kernel),
    })
}

/// Runs a program in place of a kernel; what it says on the console is its
/// result.
pub fn bare(boot: &Boot, program: &Path, directory: &Path, limit: Duration) -> Result<String> {
    paths::require(&boot.machine.needs())?;
    paths::require(&[program.to_owned()])?;
    empty(directory)?;
    let files = Files {
        kernel: Some(program.to_owned()),
        initrd: None,
        data: directory.join("data"),
        stats: directory.join("stats"),
    };
    let status = execute(boot, &files, directory, limit, false)?;
    let console = fs::read(directory.join("console"))?;
    let mut text = String::from_utf8_lossy(&console).into_owned();
    if status.is_none() {
        text.push_str("\n# the time was up\n");
    }
    Ok(text)
}

/// Boots a machine for a person: no job, the terminal is the console.
pub fn interactive(boot: &Boot, directory: &Path) -> Result<()> {
    let files = prepare(boot, None, directory)?;
    let log = directory.join("machine.log");
    let mut command = boot.machine.command(boot, &files);
    command.stderr(Stdio::from(File::create(&log)?));
    let status = spawn(&mut command)?.wait()?;
    files.remove(boot)?;
    match status.code() {
        Some(0 | CLEAN_END) => Ok(()),
        // Poweroff, without the registers for it.
        Some(RESET) if boot.given.is_any() => Ok(()),
        _ => bail!("the machine ended with {status}; see {}", log.display()),
    }
}

/// What somebody types who reads the console.
pub struct Dialogue {
    /// When it shows this,
    pub prompt: &'static str,
    /// this, once.
    pub answer: String,
}

/// Runs a machine that is started by `command`, with somebody at its console, to its end; `None`: until
/// the time was up. The console goes to a file in `directory`.
pub fn attended(
    command: &mut Command,
    dialogue: Dialogue,
    directory: &Path,
    limit: Duration,
) -> Result<Option<ExitStatus>> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(File::create(directory.join("machine.log"))?));
    let mut child = spawn(command)?;
    let console = File::create(directory.join("console"))?;
    let ended = stream(&mut child, console, false, Some(dialogue));
    if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    }
    Ok(Some(child.wait()?))
}

/// How long a machine that does not end has to say where it is.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Runs the machine to its end, `None`: until the time was up. The console
/// goes to a file, and to stdout with `echo`; at the end of one that the time
/// was up for is where its CPUs were, if the machine can tell.
fn execute(
    boot: &Boot,
    files: &Files,
    directory: &Path,
    limit: Duration,
    echo: bool,
) -> Result<Option<ExitStatus>> {
    let mut command = boot.machine.command(boot, files);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(File::create(directory.join("machine.log"))?));
    let mut child = spawn(&mut command)?;
    let console = File::create(directory.join("console"))?;
    let ended = stream(&mut child, console, echo, None);

    // The console is closed when the machine ends.
    if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
        if let Some(questions) = boot.machine.questions() {
            let mut monitor = child.stdin.take().context("no monitor")?;
            monitor.write_all(questions.as_bytes())?;
            // It ends after the answers, or it does not answer.
            let _ = ended.recv_timeout(LAST_WORDS);
        }
        child.kill()?;
        child.wait()?;
        return Ok(None);
    }
    Ok(Some(child.wait()?))
}

impl Files {
    /// Removes what is large and of no use after the run.
    fn remove(&self, boot: &Boot) -> Result<()> {
        if let (Some(initrd), None) = (&self.initrd, &boot.given.initrd) {
            fs::remove_file(initrd)?;
        }
        fs::remove_file(&self.data)?;
        match (&self.kernel, &boot.patch) {
            (Some(kernel), Some(_)) if kernel.parent() == self.data.parent() => {
                Ok(fs::remove_file(kernel)?)
            }
            _ => Ok(()),
        }
    }
}

/// An empty directory.
pub fn empty(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(fs::create_dir_all(directory)?),
    }
}

/// The path of a kernel that a boot loader can start.
fn bz_image(path: &Path) -> Result<PathBuf> {
    // Documentation/arch/x86/boot.rst: "HdrS" at 0x202.
    let mut start = [0; 0x206];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            Err(error).with_context(|| path.display().to_string())
        }
        Ok(()) if start.ends_with(b"HdrS") => Ok(path.to_owned()),
        _ => bail!("{} is no bzImage", path.display()),
    }
}

fn prepare(boot: &Boot, job: Option<&Job>, directory: &Path) -> Result<Files> {
    let kernel = match &boot.given.kernel {
        Some(image) => Some(bz_image(image)?),
        None if boot.given.on_disk => None,
        None => Some(boot.kernel.product(boot.machine.kernel())),
    };
    let mut needed = boot.machine.needs();
    needed.extend(kernel.clone());
    needed.extend(boot.disk.clone());
    if !boot.given.is_any() {
        needed.push(paths::SELFTESTS.into());
    }
    paths::require(&needed)?;
    empty(directory)?;
    let kernel = match (kernel, &boot.patch) {
        (Some(kernel), Some(patch)) if kernel.ends_with(patch.image) => {
            let patched = directory.join(patch.image);
            fs::write(&patched, patch.applied(&kernel)?)?;
            Some(patched)
        }
        (kernel, _) => kernel,
    };
    let ours = directory.join("initrd");
    let initrd = match boot.given.on_disk {
        true => None,
        false => Some(boot.given.initrd.as_ref().unwrap_or(&ours)),
    };
    let files = Files {
        kernel,
        initrd: initrd.cloned(),
        data: directory.join("data.tar"),
        stats: directory.join("stats"),
    };
    if boot.given.initrd.is_none() {
        if let Some(initrd) = initrd {
            image::write(boot, job, initrd)?;
        }
    }
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

/// Copies the console to a file and perhaps to stdout, and answers what it asks. The receiver gets
/// something, or is cut off, when the console is closed.
fn stream(
    child: &mut Child,
    mut log: File,
    echo: bool,
    dialogue: Option<Dialogue>,
) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    let mut console = child.stdout.take();
    let mut waiting = dialogue.and_then(|dialogue| Some((dialogue, child.stdin.take()?)));
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut seen = Vec::new();
        while let Some(Ok(length @ 1..)) = console.as_mut().map(|from| from.read(&mut buffer)) {
            if log.write_all(&buffer[..length]).is_err() {
                break;
            }
            if let Some((dialogue, keyboard)) = &mut waiting {
                seen.extend_from_slice(&buffer[..length]);
                let prompt = dialogue.prompt.as_bytes();
                if seen.windows(prompt.len()).any(|window| window == prompt) {
                    // A machine that is gone needs no answer.
                    let _ = keyboard.write_all(dialogue.answer.as_bytes());
                    waiting = None;
                }
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
    if status.code() == Some(oracle::VIOLATION) {
        return End::Died("the oracle has stopped the machine".to_owned());
    }
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
