//! Does the steps, one after the other: progress on the terminal, the tools' output in a log.

use std::fs::{self, File};
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::host::{Host, Lists, Privilege};
use super::plan::Step;
use super::report;
use crate::{process, workspace};

const APT_INSTALL: &str = include_str!("apt-install.sh");
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Everything that the tools say. While it is open, no other run of ours installs.
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Waits for another run's end; then that run's log is gone.
    pub(super) fn open() -> anyhow::Result<Self> {
        let directory = workspace::target_dir().join("xtask");
        let path = directory.join("setup.log");
        fs::create_dir_all(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
        let open = || -> std::io::Result<File> {
            let file = File::options().create(true).append(true).open(&path)?;
            if file.try_lock().is_err() {
                eprintln!("setup: waits for another one to finish");
                file.lock()?;
            }
            file.set_len(0)?;
            Ok(file)
        };
        let file = open().with_context(|| format!("open {}", path.display()))?;
        Ok(Self { path, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The last lines, indented.
    pub(super) fn tail(&self) -> String {
        let lines = last_lines(&end_of(&self.path, 8192), 15);
        lines.iter().map(|line| format!("    {line}\n")).collect()
    }

    /// What the last tool said last.
    pub(super) fn last_line(&self) -> String {
        last_lines(&end_of(&self.path, 1024), 1).concat()
    }
}

/// The last ones that are not empty. A line that a tool has written over is as it was left.
fn last_lines(text: &str, count: usize) -> Vec<String> {
    let lines =
        text.lines().filter_map(|line| line.rsplit('\r').find(|part| !part.trim().is_empty()));
    let mut lines: Vec<String> =
        lines.rev().take(count).map(|line| line.trim_end().into()).collect();
    lines.reverse();
    lines
}

fn end_of(path: &Path, bytes: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(text)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// Runs the steps until one does not succeed; returns that one and those after it.
///
/// # Errors
/// sudo was not given its password, or a program could not be started.
pub(super) fn all<'a>(steps: &'a [Step], host: &Host, log: &Log) -> anyhow::Result<&'a [Step]> {
    let uses_apt = steps.iter().any(|step| matches!(step, Step::Packages(_)));
    if uses_apt && host.privilege == Privilege::SudoAsks {
        // Asked now, so that the question is not hidden in the log.
        let status = process::status(Command::new("sudo").arg("-v"))?;
        if !status.success() {
            bail!("setup: apt-get needs root, and sudo did not allow it");
        }
    }
    for (index, step) in steps.iter().enumerate() {
        let number = format!("[{}/{}]", index + 1, steps.len());
        if !one(step, &number, host, log)? {
            return Ok(steps.get(index..).unwrap_or_default());
        }
    }
    Ok(&[])
}

/// Whether the step succeeded.
fn one(step: &Step, number: &str, host: &Host, log: &Log) -> anyhow::Result<bool> {
    match step {
        Step::RustSrc | Step::Linker => watch(step, number, host, log),
        // One broken third-party list fails the update; whether it mattered shows in the
        // installation.
        Step::RefreshLists => watch(step, number, host, log).map(|_| true),
        Step::Packages(_) => {
            // A package that the lists name may be gone from the archive a moment later.
            Ok(watch(step, number, host, log)?
                || (host.lists == Lists::Fresh
                    && watch(&Step::RefreshLists, number, host, log)?
                    && watch(step, number, host, log)?))
        }
    }
}

/// Runs one step's command with its output in the log, and shows that it lives.
fn watch(step: &Step, number: &str, host: &Host, log: &Log) -> anyhow::Result<bool> {
    writeln!(&log.file, "\n== {}", step.label()).context("write the log")?;
    let mut command = command(step, host);
    command.stdin(Stdio::null()).stdout(log.file.try_clone()?).stderr(log.file.try_clone()?);
    let started = Instant::now();
    let spinner = spinner(format!("{number} {}", step.label()), log.path.clone());
    // The child writes to the file itself: a pipe would break under dpkg, should we be killed.
    let status = process::status(&mut command);
    spinner.finish_and_clear();
    let ok = status?.success();
    let took = report::duration(started.elapsed());
    eprintln!("setup: {number} {}: {} ({took})", step.label(), if ok { "done" } else { "failed" });
    Ok(ok)
}

/// On a terminal, the time and the log's last line; else nothing.
fn spinner(text: String, log: PathBuf) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    const WIDTH: usize = 60;
    let tail = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
        let line = last_lines(&end_of(&log, 1024), 1).concat();
        let _ = out.write_str(&line.trim().chars().take(WIDTH).collect::<String>());
    };
    let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}  {tail:.dim}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .with_key("tail", tail);
    let spinner = ProgressBar::new_spinner().with_style(style).with_message(text);
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

fn command(step: &Step, host: &Host) -> Command {
    match step {
        Step::RustSrc => {
            let mut command = process::command("rustup");
            command.args(["component", "add", "rust-src"]);
            command
        }
        Step::RefreshLists => {
            let mut command = as_root("apt-get", host);
            command.args(["update", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]);
            command
        }
        Step::Packages(packages) => {
            let mut command = as_root("sh", host);
            command.args(["-c", APT_INSTALL, "apt-install.sh", POLICY]);
            command.args(packages.iter().map(|package| package.name));
            command
        }
        Step::Linker => linker(),
    }
}

fn linker() -> Command {
    let mut command = process::command(process::cargo_program());
    // These are meant for the workspace; cargo install would leave its products there, or build for
    // another machine.
    for name in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(name);
    }
    command.env("LLVM_PREFIX", report::LLVM_PREFIX).env("CARGO_TERM_COLOR", "never");
    command.args(report::LINKER_ARGS);
    command
}

fn as_root(program: &str, host: &Host) -> Command {
    match host.privilege {
        Privilege::Root | Privilege::None => process::command(program),
        // -n: its question was answered before, or there is none.
        Privilege::Sudo | Privilege::SudoAsks => {
            let mut command = process::command("sudo");
            command.args(["-n", program]);
            command
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn the_end_of_a_log_is_what_a_terminal_would_show() {
        let text = "first\n\n(Reading database ... 5%\r(Reading database ... 10%\r\nE: no such package\n\n";
        assert_eq!(last_lines(text, 2), ["(Reading database ... 10%", "E: no such package"]);
        assert_eq!(last_lines("", 2), [""; 0]);
    }

    #[test]
    fn no_service_starts_while_packages_are_installed_and_no_trace_stays() {
        let machine = Machine::new("installs", "test -x \"$POLICY\" && ! \"$POLICY\"");
        assert!(machine.install().success());
        assert!(!machine.policy().exists());
    }

    #[test]
    fn the_policy_goes_also_when_apt_get_does_not_succeed() {
        let machine = Machine::new("fails", "exit 100");
        assert_eq!(machine.install().code(), Some(100));
        assert!(!machine.policy().exists());
    }

    #[test]
    fn the_policy_goes_also_on_ctrl_c() {
        let machine = Machine::new("interrupted", "kill -INT $PPID; kill -INT $$");
        assert_eq!(machine.install().code(), Some(130));
        assert!(!machine.policy().exists());
    }

    #[test]
    fn a_policy_of_the_machine_stays_as_it_is() {
        let machine = Machine::new("has-policy", "true");
        fs::write(machine.policy(), "#!/bin/sh\nexit 104\n").unwrap();
        assert!(machine.install().success());
        assert_eq!(fs::read_to_string(machine.policy()).unwrap(), "#!/bin/sh\nexit 104\n");
    }

    #[test]
    fn a_policy_left_by_a_run_that_was_killed_is_taken_away() {
        let machine = Machine::new("killed", "kill -KILL $PPID");
        assert_eq!(machine.install().signal(), Some(9));
        assert!(machine.policy().exists());
        machine.apt_get("true");
        assert!(machine.install().success());
        assert!(!machine.policy().exists());
    }

    #[test]
    fn packages_arrive_as_words_and_nothing_is_removed_for_them() {
        let machine = Machine::new("arguments", "echo \"$@\" > \"$POLICY.args\"");
        assert!(machine.install().success());
        let args = fs::read_to_string(machine.policy().with_extension("d.args")).unwrap();
        assert!(
            args.ends_with("--no-install-recommends --no-remove tshark nginx-light\n"),
            "{args}"
        );
    }

    /// A folder with an apt-get and a policy-rc.d of its own; removed when dropped.
    struct Machine {
        root: PathBuf,
    }

    impl Machine {
        fn new(name: &str, apt_get: &str) -> Self {
            let root = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            fs::create_dir_all(&root).unwrap();
            let machine = Self { root };
            machine.apt_get(apt_get);
            // The real one must not hear of services here.
            machine.program("systemctl", "true");
            machine
        }

        fn apt_get(&self, script: &str) {
            self.program("apt-get", script);
        }

        fn program(&self, name: &str, script: &str) {
            let file = self.root.join(name);
            fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn policy(&self) -> PathBuf {
            self.root.join("policy-rc.d")
        }

        fn install(&self) -> std::process::ExitStatus {
            let mut path = std::ffi::OsString::from(&self.root);
            path.push(":");
            path.push(std::env::var_os("PATH").unwrap());
            Command::new("sh")
                .args(["-c", APT_INSTALL, "apt-install.sh"])
                .arg(self.policy())
                .args(["tshark", "nginx-light"])
                .env("PATH", path)
                .env("POLICY", self.policy())
                .status()
                .unwrap()
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}
