// SPDX-License-Identifier: GPL-2.0

//! Boots the image as a person does who has put it on a stick, and reads what it leaves there.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use mvpmu_report::compare;
use mvpmu_report::file;
use mvpmu_report::schema::Outcome;
use mvpmu_report::schema::Provider;
use mvpmu_report::text;
use mvpmu_report::Report;

use super::boots::built_in;
use super::boots::files;
use super::boots::on_usb;
use super::boots::pc;
use super::boots::run;
use super::disk::Disk;
use super::DIRECTORY;
use super::NAME;
use crate::boot;
use crate::machine::Boot;
use crate::machine::Machine;
use crate::machine::Pmu;
use crate::paths;
use crate::paths::Kernel;
use crate::tap::Case;

/// The directory for reports.
const MARKER: &str = "mvpmu";

/// The reports of the test machines that mvpmu-report compares with.
const RECORDED: &str = "tools/kvm/mvpmu/report/recorded";

/// The report with this number.
fn report(stick: &Disk, number: u32) -> Result<(Report, String)> {
    let read = |extension: &str| stick.read(&format!("mvpmu/report-{number}.{extension}"));
    let report = file::parse(&String::from_utf8(read("json")?)?)?;
    Ok((report, String::from_utf8(read("txt")?)?))
}

/// That nothing is other than in the report that is recorded for the machine; what it is else compared
/// with would not be what the machine does.
fn as_recorded(report: &Report, machine: Machine, directory: &Path) -> Result<Case> {
    let recorded = Path::new(RECORDED).join(format!("{}.json", machine.name()));
    let new = directory.join("report.json");
    fs::write(&new, file::json(report)?)?;
    let found = match file::read(&recorded) {
        Ok(recorded) => {
            let mut found = compare::differences(report, &recorded);
            found.extend(compare::differences(&recorded, report));
            found
        }
        Err(error) => vec![format!("{error:#}")],
    };
    let name = "it is the recorded one, but for time";
    Ok(Case::new(name, found.is_empty(), || {
        let (new, recorded) = (new.display(), recorded.display());
        format!(
            "{}\nif that is right: cp {new} {recorded}",
            found.join("\n")
        )
    }))
}

/// What holds of each report of a machine that can do it.
fn of_report(report: &Report, machine: Machine, directory: &Path) -> Result<Vec<Case>> {
    let verdict = text::verdict(report);
    let passed = report.verdict.outcome == Outcome::Passed;
    let costs = &report.exits;
    let cost = costs.iter().all(|cost| cost.cycles.median > 0.0);
    // On the machines a cycle is an instruction, of which it takes fewer.
    let all = costs.iter().map(|cost| cost.counters).max().unwrap_or(0);
    let of = |provider| text::exit_cost(costs, "cpuid", all, provider);
    let of_both = of(Provider::C).zip(of(Provider::Mvpmu));
    let less = of_both.is_some_and(|(c, mvpmu)| mvpmu.cycles.median < c.cycles.median);
    Ok(vec![
        Case::new("the report says that all has passed", passed, || {
            verdict.clone()
        }),
        Case::new(
            "it knows that the machine is emulated",
            report.cpu.emulated,
            String::new,
        ),
        Case::new(
            "each VM exit costs something",
            cost && !costs.is_empty(),
            || format!("{costs:?}"),
        ),
        Case::new(
            "one by CPUID, with all counters, costs less than with C",
            less,
            || format!("{of_both:?}"),
        ),
        as_recorded(report, machine, directory)?,
    ])
}

/// `make image`, and once more: the same bytes.
fn reproducible(directory: &Path) -> Result<Case> {
    super::make("small")?;
    let again = directory.join("again");
    fs::create_dir_all(&again)?;
    super::build(&again)?;
    let [first, second] =
        [Path::new(DIRECTORY), &again].map(|directory| fs::read(directory.join(NAME)));
    Ok(Case::new(
        "a second image has the same bytes",
        first? == second?,
        || format!("{DIRECTORY} and {} differ", again.display()),
    ))
}

/// Where README.md has the stick.
const MOUNTED: &str = "/media/stick";

/// Runs the commands of README.md that begin with a word and have to do with the stick, with `directory`
/// in place of it. What they say, or the first that fails.
fn as_readme_says(word: &str, directory: &Path) -> Result<Output> {
    let readme = fs::read_to_string("README.md")?;
    let lines = readme
        .lines()
        .filter(|line| line.starts_with("    ") && line.contains(MOUNTED));
    let lines: Vec<_> = lines
        .map(str::trim)
        .filter(|line| line.starts_with(word))
        .collect();
    ensure!(!lines.is_empty(), "README.md does not say how: {word}");
    let script = lines
        .join(" && ")
        .replace(MOUNTED, &directory.to_string_lossy());
    let path = format!("build/tools:{}", std::env::var("PATH")?);
    Ok(Command::new("sh")
        .args(["-c", &script])
        .env("PATH", path)
        .output()?)
}

/// Text on the picture: lines of 16 pixels that are not all of one colour.
fn lines_of_text(picture: &Path) -> Result<usize> {
    let bytes = fs::read(picture).with_context(|| picture.display().to_string())?;
    // "P6\nWIDTH HEIGHT\n255\n", then three bytes for each pixel.
    let header: Vec<_> = bytes.splitn(4, |&byte| byte == b'\n').collect();
    let [_, size, _, pixels] = header[..] else {
        anyhow::bail!("{} is no picture", picture.display());
    };
    let size = String::from_utf8_lossy(size);
    let width: usize = size.split(' ').next().unwrap_or_default().parse()?;
    let rows = pixels.chunks(16 * 3 * width);
    Ok(rows
        .filter(|row| row.chunks(3).any(|pixel| pixel != &row[..3]))
        .count())
}

/// `mvpmu-report`, with the stick mounted.
fn tool(report: &Report, mounted: &Path) -> Result<Vec<Case>> {
    let path = mounted.join("mvpmu/report-1.json");
    let json = fs::read(&path)?;
    let cut = mounted.join("cut.json");
    fs::write(&cut, &json[..json.len() / 2])?;
    let run = |files: &[&Path]| {
        Command::new(paths::tool("mvpmu-report"))
            .args(files)
            .output()
    };
    let one = as_readme_says("mvpmu-report ", mounted)?;
    let (two, refused) = (run(&[&path, &path])?, run(&[&path, &cut])?);
    let errors = String::from_utf8_lossy(&refused.stderr);
    let several = String::from_utf8_lossy(&two.stdout);
    Ok(vec![
        Case::new(
            "mvpmu-report shows it",
            String::from_utf8_lossy(&one.stdout) == text::report(report),
            || format!("{one:?}"),
        ),
        Case::new(
            "mvpmu-report compares it with itself",
            two.status.success() && several.contains("but for time:\n  nothing\n"),
            || format!("{two:?}"),
        ),
        Case::new(
            "mvpmu-report says of one that is cut off that it is",
            refused.status.code() == Some(1) && errors.contains("cut.json: the report is cut off"),
            || format!("{refused:?}"),
        ),
    ])
}

/// A stick as README.md has it made, the directory with what is on it, and what was seen while it was made.
fn stick(directory: &Path) -> Result<(Disk, PathBuf, Vec<Case>)> {
    // Nothing of an earlier run may look like something of this.
    boot::empty(directory)?;
    let cases = vec![reproducible(directory)?];
    let mounted = directory.join("mounted");
    for word in ["mkdir ", "cp "] {
        let output = as_readme_says(word, &mounted)?;
        ensure!(output.status.success(), "{output:?}");
    }
    Ok((
        Disk::new(&directory.join("stick"), &mounted)?,
        mounted,
        cases,
    ))
}

/// On the AMD machine, only what it says where it can do nothing.
pub fn on_amd_that_is_unable(directory: &Path) -> Result<Vec<Case>> {
    let (stick, _, mut cases) = stick(directory)?;
    cases.extend(unable(&stick, 1, directory)?);
    Ok(cases)
}

/// On the AMD machine, from a stick, by firmware.
pub fn on_amd(directory: &Path) -> Result<Vec<Case>> {
    let (stick, mounted, mut cases) = stick(directory)?;
    let disk = Disk::new(&directory.join("disk"), &directory.join("again"))?;
    let before = disk.bytes()?;

    // A busy host is not to be seen in the report.
    let boot = Boot::new(Machine::Amd).with_instruction_clock();
    let picture = directory.join("screen.ppm");
    let options = pc(&stick, &disk);
    let ended = run(
        &boot,
        &files(None, None, directory),
        &options,
        Some(&picture),
        directory,
    )?;
    let (found, shown) = report(&stick, 1).context("the report on the stick")?;
    let lines = lines_of_text(&picture)?;
    cases.extend(of_report(&found, Machine::Amd, directory)?);
    cases.extend([
        ended.went_off(),
        ended.says(
            "the serial console shows the verdict",
            &text::verdict(&found),
        ),
        ended.says(
            "and where the report is",
            "The report is on sda1, in mvpmu/report-1.json.",
        ),
        Case::new("so does the screen show text", lines > 20, || {
            format!("{lines} lines of it")
        }),
        Case::new(
            "the report as text is that of JSON",
            shown == text::report(&found),
            || shown.clone(),
        ),
        Case::new(
            "the other disk is as it was",
            disk.bytes()? == before,
            String::new,
        ),
        Case::new(
            "and so is the image on the stick",
            stick.read("EFI/BOOT/BOOTX64.EFI")? == fs::read(mounted.join("EFI/BOOT/BOOTX64.EFI"))?,
            String::new,
        ),
    ]);
    fs::write(mounted.join("mvpmu/report-1.json"), file::json(&found)?)?;
    cases.extend(tool(&found, &mounted)?);
    cases.extend(unable(&stick, 2, directory)?);
    let (first, _) = report(&stick, 1)?;
    cases.push(Case::new(
        "the first is as it was",
        first.verdict.outcome == Outcome::Passed,
        String::new,
    ));
    Ok(cases)
}

/// Where guests cannot have the PMU; a report that is left on the stick has this number. Without firmware, as
/// it takes time and changes nothing then.
fn unable(stick: &Disk, number: u32, directory: &Path) -> Result<Vec<Case>> {
    let initrd = Path::new(DIRECTORY).join("initrd.zst");
    let run = |name: &str, boot: Boot, options: &[String]| {
        let directory = directory.join(name);
        fs::create_dir_all(&directory)?;
        let kernel = Kernel::Main.product("bzImage");
        let files = files(Some(kernel), Some(initrd.clone()), &directory);
        run(&boot, &files, options, None, &directory)
    };
    let amd = Boot::new(Machine::Amd).with_instruction_clock();
    let without_kvm = Boot {
        virtualisation: false,
        ..amd.clone()
    };
    let ended = run("without-kvm", without_kvm, &on_usb(stick))?;
    let (left, _) = report(stick, number).context("the report on the stick")?;
    let reason = "UNABLE: CPU: AMD, without SVM";
    let mut cases = vec![
        ended.says("without SVM it says so", reason),
        ended.went_off(),
        Case::new(
            "and leaves a report",
            text::verdict(&left).starts_with(reason),
            || format!("{:?}", left.verdict),
        ),
    ];

    let reports = directory.join("reports");
    fs::create_dir_all(reports.join(MARKER))?;
    let marked = Disk::new(&directory.join("marked"), &reports)?;
    let before = (stick.bytes()?, marked.bytes()?);
    let without_pmu = Boot {
        pmu: Pmu::Off,
        ..amd
    };
    let options = [&on_usb(stick)[..], &built_in(&marked)[..]].concat();
    let ended = run("without-pmu", without_pmu, &options)?;
    cases.extend([
        ended.says("without a PMU it says so", "UNABLE: PMU: there is none"),
        ended.says(
            "and, where two disks have the directory, that nothing is written",
            "sda1, vda1 all have a directory mvpmu: the report is only shown",
        ),
        Case::new(
            "nothing is",
            (stick.bytes()?, marked.bytes()?) == before,
            String::new,
        ),
    ]);
    Ok(cases)
}

/// On the Intel machine, which has neither firmware nor a stick: the report is what it shows.
pub fn on_intel(directory: &Path) -> Result<Vec<Case>> {
    boot::empty(directory)?;
    super::build(directory)?;
    let boot = Boot {
        append: "mvpmu.json".to_owned(),
        ..Boot::new(Machine::Intel)
    };
    let kernel = boot.kernel.product(boot.machine.kernel());
    let files = files(Some(kernel), Some(directory.join("initrd.zst")), directory);
    let ended = run(&boot, &files, &[], None, directory)?;
    let json = ended.console.find("\n{\n").zip(ended.console.find("\n}\n"));
    let (begin, end) = json.context("no JSON on the console")?;
    let found = file::parse(&ended.console[begin..end + 3])?;
    let mut cases = of_report(&found, Machine::Intel, directory)?;
    cases.extend([
        ended.says("it says that all has passed", "PASSED: all "),
        ended.says(
            "and that there is no stick",
            "No FAT file system has a directory mvpmu",
        ),
        ended.went_off(),
    ]);
    Ok(cases)
}
