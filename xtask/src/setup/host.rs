//! What a machine offers to install with.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::process;

/// What could be used to install.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Host {
    pub(super) rustup: Rustup,
    /// Debian, or a system that calls itself like it and has apt-get; else its own name.
    pub(super) system: System,
    pub(super) privilege: Privilege,
    pub(super) lists: Lists,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rustup {
    Present,
    Absent,
    /// It was asked in this run and could not.
    Refused,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum System {
    Debian,
    Other(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Privilege {
    Root,
    /// sudo without a question.
    Sudo,
    /// sudo will ask, and there is a terminal to answer at.
    SudoAsks,
    None,
}

/// The package lists that apt-get reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lists {
    Fresh,
    /// Absent or older than a day.
    Stale,
}

impl Host {
    /// For a machine that lacks nothing: asking sudo alone would take longer than all the rest.
    pub(super) fn not_asked() -> Self {
        Self {
            rustup: Rustup::Absent,
            system: System::Other("not asked".into()),
            privilege: Privilege::None,
            lists: Lists::Stale,
        }
    }

    pub(super) fn gather() -> Self {
        let rustup = process::find("rustup", &process::cargo_bin_directories()).is_some();
        Self {
            rustup: if rustup { Rustup::Present } else { Rustup::Absent },
            system: system(),
            privilege: privilege(),
            lists: lists(Path::new("/var/lib/apt/lists")),
        }
    }
}

fn system() -> System {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = system_named(&text);
    if system == System::Debian && process::find("apt-get", &[]).is_none() {
        return System::Other("a Debian without apt-get".into());
    }
    system
}

fn system_named(text: &str) -> System {
    let is_debian = ["ID", "ID_LIKE"].iter().any(|key| {
        os_release(text, key).is_some_and(|names| names.split(' ').any(|name| name == "debian"))
    });
    match (is_debian, os_release(text, "PRETTY_NAME")) {
        (true, _) => System::Debian,
        (false, name) => System::Other(name.unwrap_or("this system").into()),
    }
}

fn os_release<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.trim_matches('"')))
}

fn privilege() -> Privilege {
    use std::io::IsTerminal;
    if process::is_root() {
        return Privilege::Root;
    }
    if process::find("sudo", &[]).is_none() {
        return Privilege::None;
    }
    let quiet = Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    match (quiet, std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        (true, _) => Privilege::Sudo,
        (false, true) => Privilege::SudoAsks,
        (false, false) => Privilege::None,
    }
}

fn lists(directory: &Path) -> Lists {
    const FRESH_FOR: Duration = Duration::from_secs(24 * 3600);
    let has_lists = fs::read_dir(directory).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    });
    // The files carry the archive's own dates; the folder's is when apt-get last renewed one.
    let renewed = fs::metadata(directory).and_then(|metadata| metadata.modified());
    let age = renewed.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    if has_lists && age.is_some_and(|age| age < FRESH_FOR) { Lists::Fresh } else { Lists::Stale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_what_is_like_it_are_told_from_others() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n";
        let ubuntu = "PRETTY_NAME=\"Ubuntu 24.04 LTS\"\nID=ubuntu\nID_LIKE=debian\n";
        let fedora = "ID=fedora\nPRETTY_NAME=\"Fedora Linux 42\"\nHOME_URL=\"https://debian\"\n";
        assert_eq!(system_named(debian), System::Debian);
        assert_eq!(system_named(ubuntu), System::Debian);
        assert_eq!(system_named(fedora), System::Other("Fedora Linux 42".into()));
        assert_eq!(system_named(""), System::Other("this system".into()));
    }

    #[test]
    fn a_folder_without_package_lists_is_stale_however_new() {
        assert_eq!(lists(Path::new("/proc/self/fd")), Lists::Stale);
        assert_eq!(lists(Path::new("/nonexistent")), Lists::Stale);
    }
}
