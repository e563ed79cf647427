//! Starting other programs as if a person had typed them at the root of the repository.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::Context;

use crate::workspace;

/// What `cargo run` and rustup's proxies leave in our environment. A nested cargo that finds them
/// uses another toolchain than the pinned one, or hands this crate's name to build scripts; rustup
/// counts its own depth and gives up.
const LEFT_BY_CARGO: [&str; 8] = [
    "CARGO",
    "CARGO_CRATE_NAME",
    "CARGO_PRIMARY_PACKAGE",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTUP_TOOLCHAIN",
    "RUSTUP_TOOLCHAIN_SOURCE",
    "RUST_RECURSION_COUNT",
];
const LEFT_BY_CARGO_PREFIXES: [&str; 3] = ["CARGO_BIN_", "CARGO_MANIFEST_", "CARGO_PKG_"];

/// A command at the root of the repository, with the environment of the person and not of the cargo
/// that started us.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_left_by_cargo(name)) {
        command.env_remove(name);
    }
    // A relative one meant the folder where cargo was called, which we have just left.
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR")
        && let Ok(absolute) = std::path::absolute(&target)
    {
        command.env("CARGO_TARGET_DIR", absolute);
    }
    command
}

/// The cargo of the pinned toolchain: rustup's proxy on `PATH`; without rustup, the very cargo that
/// started us.
pub(crate) fn cargo_program() -> OsString {
    match find("cargo", &[]) {
        Some(_) => "cargo".into(),
        None => std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
    }
}

fn is_left_by_cargo(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    LEFT_BY_CARGO.contains(&name)
        || LEFT_BY_CARGO_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The first `PATH` entry, then of `more`, that has the program.
pub(crate) fn find(program: &str, more: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(more.iter().cloned())
        .map(|directory| directory.join(program))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Where `cargo install` puts programs, in its own order.
pub(crate) fn cargo_bin_directories() -> Vec<PathBuf> {
    let home = std::env::home_dir().map(|home| home.join(".cargo"));
    [
        std::env::var_os("CARGO_INSTALL_ROOT").map(PathBuf::from),
        std::env::var_os("CARGO_HOME").map(PathBuf::from),
        home,
    ]
    .into_iter()
    .flatten()
    .map(|root| root.join("bin"))
    .collect()
}

/// Runs a command to its end on our terminal.
///
/// # Errors
/// Only that it could not be started; what its exit status means is the caller's to say.
pub(crate) fn status(command: &mut Command) -> anyhow::Result<ExitStatus> {
    command.status().with_context(|| format!("start {}", command.get_program().display()))
}

/// The same exit code for ourselves; 128 + the signal's number, as shells do, when there was none.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Whether we may make network namespaces.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A word as a shell needs it.
pub(crate) fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_run_leaves_is_taken_away_and_what_the_person_set_stays() {
        for name in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC", "CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(is_left_by_cargo(name.as_ref()), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_TARGET_DIR",
            "CARGO_TERM_COLOR",
            "RUSTC_WRAPPER",
            "RUSTUP_HOME",
            "PATH",
        ] {
            assert!(!is_left_by_cargo(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn a_quoted_word_survives_the_shell() {
        for word in ["plain", "--advert=10ms", "two words", "it's", "", "$HOME", "a;b"] {
            let script = format!("printf %s {}", quote(word.as_ref()));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn the_exit_code_passes_through_and_a_signal_is_128_more() {
        for (script, expected) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)] {
            let status = Command::new("sh").args(["-c", script]).status().unwrap();
            assert_eq!(exit_code(status), ExitCode::from(expected), "{script}");
        }
    }
}
