//! Network namespaces, entered by threads: nothing here touches the network of the machine.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    process::{self, Child, Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    thread::{self, JoinHandle},
};

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, setns};

/// What the names of our namespaces and directories start with; the PID of their owner follows.
pub const PREFIX: &str = "tandem";

/// Where `ip netns` keeps its handles.
pub(crate) const HANDLES: &str = "/run/netns";

/// A network namespace, deleted with everything in it when dropped.
pub struct Netns {
    name: String,
}

impl Netns {
    /// The role makes the name readable in `ip netns`; the PID and a counter make it unique.
    pub fn new(role: &str) -> anyhow::Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{n}-{role}", process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let netns = Self { name };
        // Neighbour discovery and router solicitations would only be noise in the captures.
        netns.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
        netns.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip` with `args`, split at blanks.
    pub fn ip(&self, args: &str) -> anyhow::Result<()> {
        run(Command::new("ip").args(["-n", &self.name]).args(args.split_whitespace())).map(drop)
    }

    /// `key` is a path below `/proc/sys`.
    pub fn sysctl(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let file = format!("/proc/sys/{key}");
        self.enter(|| fs::write(&file, value))?
            .with_context(|| format!("write {value:?} to {file} in {}", self.name))
    }

    /// Runs `work` on a fresh thread inside; the thread of the caller stays where it is.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let handle = self.handle()?;
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&handle, CloneFlags::CLONE_NEWNET)?;
                    Ok(work())
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .map_err(|error: nix::Error| anyhow::anyhow!("enter {}: {error}", self.name))
    }

    /// A thread that lives inside until `work` returns.
    pub fn spawn_thread<T: Send + 'static>(
        &self,
        role: &str,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<JoinHandle<anyhow::Result<T>>> {
        let handle = self.handle()?;
        let name = self.name.clone();
        thread::Builder::new()
            .name(role.to_owned())
            .spawn(move || {
                setns(&handle, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("enter {name}"))?;
                work()
            })
            .with_context(|| format!("start thread {role}"))
    }

    /// Starts `command` inside. It shares everything but the network with us: unlike
    /// `ip netns exec`, which hides the mounts below `/sys`. The child is not in our process
    /// group, so that a Ctrl-C reaches us alone and we end it in order.
    pub fn spawn(&self, command: &mut Command) -> anyhow::Result<Child> {
        use std::os::unix::process::CommandExt;
        command.process_group(0);
        let program = command.get_program().to_string_lossy().into_owned();
        self.enter(|| command.spawn())?.with_context(|| format!("start {program} in {}", self.name))
    }

    /// Runs `command` inside to its end; its failure is an error.
    pub fn run(&self, command: &mut Command) -> anyhow::Result<Output> {
        self.enter(|| run(command))?.with_context(|| format!("in {}", self.name))
    }

    fn handle(&self) -> anyhow::Result<File> {
        let path = PathBuf::from(HANDLES).join(&self.name);
        File::open(&path).with_context(|| format!("open {}", path.display()))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // The error has nowhere to go, and a panic in `drop` would abort an unwinding test.
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// Runs a command to its end; the error quotes the command and what it said.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<Output> {
    let line = describe(command);
    let output = command.output().map_err(|error| missing(&line, error))?;
    ensure!(
        output.status.success(),
        "{line}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output)
}

fn describe(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    words.join(" ")
}

fn missing(line: &str, error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::NotFound {
        let program = line.split(' ').next().unwrap_or(line);
        anyhow::anyhow!("{program} is not installed; `cargo xtask setup` installs it")
    } else {
        anyhow::anyhow!("run {line}: {error}")
    }
}
