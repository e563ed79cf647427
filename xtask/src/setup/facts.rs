//! What this machine has of what we need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::Needs;
use super::host::{Host, Rustup};
use super::plan::{LAB, PEERS, Package};
use crate::process;

/// Names a rustc that brings its own `core` for BPF; `lb-daemon/build.rs` reads it.
pub(super) const BPF_RUSTC: &str = "TANDEM_BPF_RUSTC";

/// The linker's oldest version that reads the pinned toolchain's LLVM 22.
pub(super) const LINKER_VERSION: [u32; 3] = [0, 13, 0];

/// The link that only llvm-22-dev brings; bpf-linker, as we install it, starts with what it points
/// to.
const LLVM: &str = "/usr/lib/llvm-22/lib/libLLVM.so";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_BPF_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";

/// All that a plan depends on.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) core: Core,
    /// The linker found, if any, and whether it will do.
    pub(super) linker: Linker,
    /// Where the linker is, when not on `PATH`.
    pub(super) linker_off_path: Option<PathBuf>,
    /// LLVM 22 with headers, to build the linker.
    pub(super) llvm: bool,
    /// A C++ compiler brings the libstdc++ that the linker is linked with.
    pub(super) cxx: bool,
    pub(super) missing_packages: Vec<Package>,
    pub(super) host: Host,
}

/// Where the XDP programs get their `core` library.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Core {
    /// Built from the pinned toolchain's rust-src.
    RustSrc,
    /// Comes with this rustc.
    Prebuilt(PathBuf),
    Missing,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Linker {
    Ready,
    Missing,
    /// There, but it does not start or is too old: what it said.
    Unusable(String),
}

impl Facts {
    /// Looks at this machine. Nothing is asked of apt, cargo or the network.
    ///
    /// # Errors
    /// There is no usable rustc for this repository.
    pub(super) fn gather(needs: Needs) -> anyhow::Result<Self> {
        let core = core()?;
        let (linker, linker_off_path) = linker();
        let sbin = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
        let wanted: &[&[Package]] = match needs {
            Needs::Build => &[],
            Needs::Lab => &[&LAB],
            Needs::Peers => &[&LAB, &PEERS],
        };
        let missing_packages = wanted
            .iter()
            .copied()
            .flatten()
            .filter(|p| !is_there(p, &sbin))
            .copied()
            .collect::<Vec<_>>();
        let complete =
            core != Core::Missing && linker == Linker::Ready && missing_packages.is_empty();
        Ok(Self {
            core,
            linker,
            linker_off_path,
            llvm: Path::new(LLVM).exists(),
            cxx: process::find("c++", &[]).is_some(),
            missing_packages,
            host: if complete { Host::not_asked() } else { Host::gather() },
        })
    }

    pub(super) fn refuse_rustup(&mut self) {
        self.host.rustup = Rustup::Refused;
    }
}

/// By its program on `PATH`, or by its file.
fn is_there(package: &Package, more: &[PathBuf]) -> bool {
    let program = Path::new(package.program);
    if program.is_absolute() {
        program.exists()
    } else {
        process::find(package.program, more).is_some()
    }
}

fn core() -> anyhow::Result<Core> {
    if let Some(rustc) = std::env::var_os(BPF_RUSTC) {
        return Ok(Core::Prebuilt(rustc.into()));
    }
    // The one the person chose for the workspace may be another than the pinned one; the programs
    // are built by that.
    let output =
        process::command("rustc").args(["--print", "sysroot"]).output().context("start rustc")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "rustc --print sysroot: {}\nthe toolchain that rust-toolchain.toml names: rustup toolchain install",
            said.trim()
        );
    }
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    // The lock file is what build-std looks for.
    if sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").exists() {
        return Ok(Core::RustSrc);
    }
    let prebuilt = Path::new(DEBIAN_RUSTC).exists() && has_core(Path::new(DEBIAN_BPF_CORE));
    Ok(if prebuilt { Core::Prebuilt(DEBIAN_RUSTC.into()) } else { Core::Missing })
}

fn has_core(directory: &Path) -> bool {
    let is_core = |name: &str| name.starts_with("libcore-") && name.ends_with(".rlib");
    fs::read_dir(directory).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_core))
    })
}

/// The linker, and its folder if that is not on `PATH`.
fn linker() -> (Linker, Option<PathBuf>) {
    let bins = process::cargo_bin_directories();
    let Some(file) = process::find("bpf-linker", &bins) else { return (Linker::Missing, None) };
    let off_path = if process::find("bpf-linker", &[]).is_some() {
        None
    } else {
        file.parent().map(Path::to_path_buf)
    };
    // Cargo's own record is cheaper than a start of the linker with its 130 MB of LLVM, but is
    // silent on whether that LLVM is still there.
    let recorded = file
        .parent()
        .and_then(Path::parent)
        .and_then(|root| fs::read_to_string(root.join(".crates.toml")).ok());
    let version = match recorded.as_deref().and_then(recorded_version) {
        Some(version) if Path::new(LLVM).exists() => Ok(version),
        Some(_) | None => ask_version(&file),
    };
    let linker = match version {
        Ok(version) if version >= LINKER_VERSION => Linker::Ready,
        Ok([major, minor, patch]) => Linker::Unusable(format!("version {major}.{minor}.{patch}")),
        Err(said) => Linker::Unusable(said),
    };
    (linker, off_path)
}

/// From lines such as `"bpf-linker 0.13.0 (registry+https://…)" = ["bpf-linker"]`.
fn recorded_version(crates_toml: &str) -> Option<[u32; 3]> {
    crates_toml
        .lines()
        .find_map(|line| parse_version(line.strip_prefix("\"bpf-linker ")?.split(' ').next()?))
}

fn ask_version(file: &Path) -> Result<[u32; 3], String> {
    let output = Command::new(file)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(if output.status.success() {
        &output.stdout
    } else {
        &output.stderr
    });
    said.trim()
        .strip_prefix("bpf-linker ")
        .and_then(parse_version)
        .ok_or_else(|| format!("`bpf-linker --version` says: {}", said.trim()))
}

fn parse_version(text: &str) -> Option<[u32; 3]> {
    let numbers: Vec<u32> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linkers_version_is_read_from_cargos_record() {
        let record = "[v1]\n\"bpftop 9.9.9 (x)\" = []\n\"bpf-linker 0.13.0 (registry+https://x)\" = [\"bpf-linker\"]\n";
        assert_eq!(recorded_version(record), Some([0, 13, 0]));
        assert_eq!(recorded_version("[v1]\n"), None);
        assert_eq!(recorded_version("\"bpf-linker git (x)\" = []"), None);
    }

    #[test]
    fn a_package_is_known_by_a_program_or_by_a_file_of_its_own() {
        let package = |program| Package { name: "x", program, why: "" };
        assert!(is_there(&package("/proc/self/exe"), &[]));
        assert!(!is_there(&package("/proc/self/nothing"), &[]));
        assert!(is_there(&package("sh"), &[]));
        assert!(!is_there(&package("no-such-program"), &[]));
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(parse_version("0.9.15") < Some(LINKER_VERSION));
        assert!(parse_version("0.13.0") >= Some(LINKER_VERSION));
        assert!(parse_version("1.0.0") >= Some(LINKER_VERSION));
    }
}
