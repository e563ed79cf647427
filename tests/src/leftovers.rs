//! What a run that was killed outright could not clean up: found by the PID in the name.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::netns::{HANDLES, PREFIX, run};

/// Ends the processes in, and deletes, the namespaces and directories of runs that are gone.
/// Best effort: what cannot be removed is in nobody's way, as names are unique.
pub fn sweep() {
    for (name, _) in of_dead_runs(Path::new(HANDLES)) {
        end_processes(&name);
        let _ = run(Command::new("ip").args(["netns", "del", &name]));
    }
    for (_, dir) in of_dead_runs(&std::env::temp_dir()) {
        remove_dir(&dir);
    }
}

/// Unmounts what is mounted below `dir`, then removes it.
pub fn remove_dir(dir: &Path) {
    unmount_below(dir);
    let _ = fs::remove_dir_all(dir);
}

/// Unmounts everything at or below `dir`, innermost first.
pub fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    for point in points.filter(|point| point.starts_with(dir)).collect::<Vec<_>>().iter().rev() {
        let _ = umount2(*point, MntFlags::MNT_DETACH);
    }
}

fn of_dead_runs(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let dead = !Path::new("/proc").join(owner(&name)?.to_string()).exists();
            dead.then(|| (name, entry.path()))
        })
        .collect()
}

/// The PID in `tandem-PID-…`.
fn owner(name: &str) -> Option<u32> {
    let (pid, _) = name.strip_prefix(PREFIX)?.strip_prefix('-')?.split_once('-')?;
    pid.parse().ok()
}

/// A process in one of our namespaces is one that the dead run started.
fn end_processes(netns: &str) {
    let Ok(output) = run(Command::new("ip").args(["netns", "pids", netns])) else { return };
    for pid in String::from_utf8_lossy(&output.stdout).lines().filter_map(|pid| pid.parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn only_our_names_have_an_owner() {
        for (name, pid) in [
            ("tandem-4711-0-client", Some(4711)),
            ("tandem-4711-drill-x8", Some(4711)),
            ("tandem-4711", None),
            ("tandem-x-0-client", None),
            ("lbt-4711-0-client", None),
        ] {
            assert_eq!(owner(name), pid, "{name}");
        }
    }
}
