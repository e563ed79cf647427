//! What setup says: the table of what is missing, and the commands for a person.

use std::fmt::Write;
use std::time::Duration;

use super::facts::{Core, Facts};
use super::host::{Host, Privilege, System};
use super::plan::{LAB, PEERS, Package, Step};

/// Where Debian's llvm-22-dev is; llvm-sys asks for it under this name.
pub(super) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// cargo's. The feature is the LLVM to build with; the default one is newer than the pinned
/// toolchain's, and than Debian's. `--force`: a linker that is recorded but does not start is built
/// again.
pub(super) const LINKER_ARGS: [&str; 9] = [
    "install",
    "bpf-linker",
    "--version",
    "0.13.0",
    "--locked",
    "--force",
    "--no-default-features",
    "--features",
    "llvm-22",
];

/// What, why and how, a line each.
pub(super) fn table(steps: &[Step]) -> String {
    let rows: Vec<[&str; 3]> = steps.iter().flat_map(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (what, why) = (width(0).max(4), width(1).max(3));
    let mut text = format!("setup: missing here, {} to install\n\n", count(rows.len(), "thing"));
    for [a, b, c] in std::iter::once(["what", "why", "how"]).chain(rows) {
        let _ = writeln!(text, "  {a:what$}  {b:why$}  {c}");
    }
    text
}

fn rows(step: &Step) -> Vec<[&'static str; 3]> {
    match step {
        Step::RustSrc => {
            vec![["rust-src", "the source of `core`, to build it for BPF", "rustup component add"]]
        }
        Step::RefreshLists => Vec::new(),
        Step::Packages(packages) => {
            packages.iter().map(|p| [p.name, p.why, "apt-get install"]).collect()
        }
        Step::Linker => {
            vec![["bpf-linker", "links the XDP programs", "cargo install, about a minute"]]
        }
    }
}

/// The exact commands, as a shell takes them.
pub(super) fn commands(steps: &[Step], host: &Host) -> String {
    let sudo = if host.privilege == Privilege::Root { "" } else { "sudo " };
    let mut text = String::new();
    for step in steps {
        let _ = match (step, &host.system) {
            (Step::RustSrc, _) => writeln!(text, "  rustup component add rust-src"),
            (Step::RefreshLists, _) => writeln!(text, "  {sudo}apt-get update"),
            (Step::Packages(_), System::Debian) => {
                let install =
                    "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends";
                writeln!(
                    text,
                    "  {sudo}{}{install} {}",
                    if sudo.is_empty() { "" } else { "env " },
                    step.what()
                )
            }
            (Step::Packages(packages), System::Other(_)) => {
                writeln!(text, "  # with your package manager: {}", elsewhere(packages))
            }
            (Step::Linker, System::Debian) => {
                writeln!(text, "  LLVM_PREFIX={LLVM_PREFIX} cargo {}", LINKER_ARGS.join(" "))
            }
            // A release of it brings its own LLVM.
            (Step::Linker, System::Other(_)) => {
                writeln!(text, "  cargo install cargo-binstall && cargo binstall bpf-linker")
            }
        };
    }
    text
}

/// Programs, with Debian's name for the package as a hint.
fn elsewhere(packages: &[Package]) -> String {
    let mut text = String::new();
    let ours = |package: &&Package| LAB.contains(package) || PEERS.contains(package);
    for package in packages.iter().filter(ours) {
        let comma = if text.is_empty() { "" } else { ", " };
        let program = program(package);
        let _ = match program == package.name {
            true => write!(text, "{comma}{program}"),
            false => write!(text, "{comma}{program} ({})", package.name),
        };
    }
    text
}

/// Without the path of a file.
fn program(package: &Package) -> &'static str {
    package.program.rsplit('/').next().unwrap_or(package.program)
}

/// Why it was not done here, and what a person runs instead.
pub(super) fn by_hand(why: &[String], steps: &[Step], host: &Host) -> String {
    let mut text = String::new();
    for reason in why {
        let _ = writeln!(text, "setup: {reason}");
    }
    let _ = write!(text, "\nBy hand, in this folder:\n\n{}", commands(steps, host));
    let packages = || {
        steps.iter().filter_map(|step| {
            if let Step::Packages(packages) = step { Some(packages) } else { None }
        })
    };
    if host.system == System::Debian
        && packages().flatten().any(|package| package.name.starts_with("llvm"))
    {
        text.push_str(
            "\nllvm-22-dev is in Debian 12's security archive: the suite bookworm-security has to be \
             among the apt sources.\n",
        );
    }
    text.push('\n');
    text
}

/// What was found, in a line.
pub(super) fn present(facts: &Facts) -> String {
    let core = match &facts.core {
        Core::RustSrc => "rust-src".into(),
        Core::Prebuilt(rustc) => format!("a `core` for BPF with {}", rustc.display()),
        Core::Missing => "no `core` for BPF".into(),
    };
    let programs: Vec<_> = LAB.iter().chain(&PEERS).map(program).collect();
    format!("{core}, bpf-linker, {}", programs.join(", "))
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// To the tenth below ten seconds; minutes from the second one on.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::{Lists, Rustup};
    use super::*;

    #[test]
    fn the_table_names_each_package_with_its_reason() {
        let text = table(&[Step::RefreshLists, Step::Packages(LAB[..2].to_vec()), Step::Linker]);
        assert_eq!(
            text,
            "setup: missing here, 3 things to install\n\
             \n\
             \x20 what        why                                      how\n\
             \x20 iproute2    network namespaces and links of the lab  apt-get install\n\
             \x20 util-linux  programs inside of a namespace           apt-get install\n\
             \x20 bpf-linker  links the XDP programs                   cargo install, about a minute\n"
        );
    }

    #[test]
    fn a_person_without_root_gets_commands_to_paste() {
        let steps =
            [Step::RustSrc, Step::RefreshLists, Step::Packages(LAB[3..5].to_vec()), Step::Linker];
        assert_eq!(
            commands(&steps, &host(System::Debian)),
            "  rustup component add rust-src\n\
             \x20 sudo apt-get update\n\
             \x20 sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ethtool tshark\n\
             \x20 LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --locked --force \
             --no-default-features --features llvm-22\n"
        );
    }

    #[test]
    fn a_person_elsewhere_gets_the_programs_names() {
        let steps = [Step::Packages(vec![LAB[5], LAB[3], PEERS[1]]), Step::Linker];
        assert_eq!(
            commands(&steps, &host(System::Other("Fedora".into()))),
            "  # with your package manager: nginx (nginx-light), ethtool, ngx_stream_module.so \
             (libnginx-mod-stream)\n\
             \x20 cargo install cargo-binstall && cargo binstall bpf-linker\n"
        );
    }

    #[test]
    fn times_read_as_a_person_says_them() {
        for (millis, text) in
            [(40, "0.0 s"), (2_140, "2.1 s"), (54_900, "54 s"), (125_000, "2 min 05 s")]
        {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    fn host(system: System) -> Host {
        Host { rustup: Rustup::Present, system, privilege: Privilege::None, lists: Lists::Fresh }
    }
}
