//! `cargo xtask test`: builds the binaries, runs every test of the workspace, sums up.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::process;
use crate::setup::{self, Needs};

const EXAMPLES: &str = "\
Examples:
  cargo xtask test                                  every test
  cargo xtask test -- -p vrrp                       one crate's
  cargo xtask test -- the_vip_moves                 those whose name contains this
  cargo xtask test -- --test failover -- --nocapture";

/// Runs every test, the end-to-end ones too; needs root, as those make network namespaces
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Options for cargo test
    #[arg(last = true, value_name = "OPTION")]
    options: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if !process::is_root() {
        // A target folder of its own: files of root in the person's would spoil their next build.
        let root =
            r#"sudo env "PATH=$PATH" "HOME=$HOME" CARGO_TARGET_DIR=target/root cargo xtask test"#;
        bail!(
            "the end-to-end tests need root, to make network namespaces:\n\n    {root}\n\nwithout root: cargo xtask check"
        );
    }
    let toolchain = setup::ensure(Needs::Lab)?;
    let started = Instant::now();
    // The end-to-end tests start these; cargo test alone builds the binaries of a test's own crate
    // only.
    let status = process::status(toolchain.cargo().args(["build", "--workspace", "--bins"]))?;
    if !status.success() {
        return Ok(process::exit_code(status));
    }
    let mut command = toolchain.cargo();
    command.arg("test");
    // Beside a package that the person chose, --workspace would win.
    if !args.options.iter().take_while(|option| *option != "--").any(chooses_packages) {
        command.arg("--workspace");
    }
    command.arg("--no-fail-fast").args(&args.options);
    let (status, total) = counted(&mut command, &mut std::io::stdout())?;
    println!("\ntest: {total}, in {}", setup::duration(started.elapsed()));
    Ok(process::exit_code(status))
}

fn chooses_packages(option: &OsString) -> bool {
    let option = option.to_string_lossy();
    option.starts_with("-p")
        || option.starts_with("--package")
        || option == "--workspace"
        || option == "--all"
}

/// Runs cargo test, passes its output on as it comes, and adds up its result lines.
fn counted(command: &mut Command, to: &mut impl Write) -> anyhow::Result<(ExitStatus, Total)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("start cargo test")?;
    let mut total = Total::default();
    let mut line = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        let mut bytes = [0; 4096];
        loop {
            let count = output.read(&mut bytes).context("read the output of cargo test")?;
            let Some(read) = bytes.get(..count).filter(|read| !read.is_empty()) else { break };
            to.write_all(read)
                .and_then(|()| to.flush())
                .context("write the output of cargo test")?;
            for &byte in read {
                if byte == b'\n' {
                    total.add(&String::from_utf8_lossy(&line));
                    line.clear();
                } else {
                    line.push(byte);
                }
            }
        }
    }
    Ok((child.wait().context("wait for cargo test")?, total))
}

/// The sum over all test binaries.
#[derive(Default, PartialEq, Eq, Debug)]
struct Total {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Total {
    /// A line such as `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; …`; any other
    /// changes nothing.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split("; ") {
            let Some((number, name)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match name {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} ignored", self.passed, self.failed, self.ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_adds_up_result_lines_and_nothing_else() {
        let mut total = Total::default();
        for line in [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.00s",
            "test the_3 passed; 9 failed ... ok",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
            "",
        ] {
            total.add(line);
        }
        assert_eq!(total.to_string(), "13 passed, 2 failed, 1 ignored");
    }

    #[test]
    fn output_is_counted_while_it_passes_through_and_the_status_is_cargos() {
        let script =
            "printf 'test result: ok. 2 passed; 0 failed; 0 ign'; printf 'ored; x\\n'; exit 101";
        let mut passed_on = Vec::new();
        let (status, total) =
            counted(Command::new("sh").args(["-c", script]), &mut passed_on).unwrap();
        assert_eq!(status.code(), Some(101));
        assert_eq!(passed_on, b"test result: ok. 2 passed; 0 failed; 0 ignored; x\n");
        assert_eq!(total, Total { passed: 2, failed: 0, ignored: 0 });
    }

    #[test]
    fn a_package_chosen_by_the_person_is_the_only_one_tested() {
        for option in ["-p", "-pvrrp", "--package=vrrp", "--workspace"] {
            assert!(chooses_packages(&option.into()), "{option}");
        }
        assert!(!chooses_packages(&"the_vip_moves".into()));
    }
}
