//! A director of the lab: one `lbd` in its namespace, and what can happen to it.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use lb_daemon::control::Status;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    interrupt::wait_for,
    lab::{Host, Lab},
    leftovers,
    xdp_pass::XdpPass,
};

mod binaries;
mod configuration;
mod footprint;
mod misconfiguration;
mod operation;
mod program;

pub use binaries::Binaries;
pub use configuration::{Settings, configuration};
pub use footprint::{Attachment, Footprint};
pub use misconfiguration::{Misconfiguration, misconfigurations};
pub use operation::Edit;
pub use program::LoadedProgram;

/// For everything that takes the directors a moment: far beyond what it takes when all is well.
pub const READY_LIMIT: Duration = Duration::from_secs(20);

/// The log of a failed director is quoted from its end.
const LOG_LINES: usize = 25;

pub struct Director<'lab> {
    lab: &'lab Lab,
    pub host: &'lab Host,
    binaries: Binaries,
    /// Everything of this director: configuration, socket, state, log.
    dir: PathBuf,
    /// As it was made; edits change the file.
    configuration: String,
    lbd: Option<Child>,
    far_end: Option<XdpPass>,
}

impl<'lab> Director<'lab> {
    /// Prepared, not started.
    pub fn new(
        lab: &'lab Lab,
        host: &'lab Host,
        binaries: &Binaries,
        settings: Settings,
    ) -> anyhow::Result<Self> {
        let dir = lab.dir().join(host.name);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let far_end = Some(lab.allow_native_xdp(host)?);
        let director = Self {
            lab,
            host,
            binaries: binaries.clone(),
            dir,
            configuration: configuration(host.name, settings),
            lbd: None,
            far_end,
        };
        let file = director.config_file();
        fs::write(&file, &director.configuration)
            .with_context(|| format!("write {}", file.display()))?;
        Ok(director)
    }

    /// For tests: `lb1` alone, active and ready when this returns.
    pub fn start_alone(lab: &'lab Lab) -> anyhow::Result<Self> {
        Self::start_alone_with(lab, "")
    }

    /// As [`Self::start_alone`], with more keys for the virtual service.
    pub fn start_alone_with(lab: &'lab Lab, service_keys: &str) -> anyhow::Result<Self> {
        let settings =
            Settings { priority: 200, advertisement_interval: Duration::from_millis(100) };
        let mut director = Self::new(lab, &lab.directors[0], &Binaries::of_tests()?, settings)?;
        let dr = "forwarding = \"dr\"\n";
        let text = director.configuration.replace(dr, &format!("{dr}{service_keys}"));
        fs::write(director.config_file(), text).context("write the configuration")?;
        director.start()?;
        director.wait_ready("active", READY_LIMIT)?;
        Ok(director)
    }

    pub fn start(&mut self) -> anyhow::Result<()> {
        ensure!(!self.is_running(), "start {}: it runs already", self.host.name);
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let mut command = Command::new(&self.binaries.lbd);
        command.arg("--config").arg(self.config_file());
        command.arg("--state-dir").arg(self.state_dir()).arg("--socket").arg(self.socket());
        command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.lbd = Some(self.host.netns.spawn(&mut command)?);
        Ok(())
    }

    pub fn is_running(&mut self) -> bool {
        self.lbd.as_mut().is_some_and(|lbd| matches!(lbd.try_wait(), Ok(None)))
    }

    /// Runs `lbctl` to its end, whatever that is.
    pub fn lbctl(&self, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.binaries.lbctl);
        command.arg("--socket").arg(self.socket()).args(args);
        self.host.netns.enter(|| command.output())?.context("run lbctl")
    }

    /// What `lbctl status` says; the error is lbctl's own.
    pub fn status(&self) -> anyhow::Result<Status> {
        let output = self.lbctl(&["-o", "json", "status"])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "lbctl status: {}: {}", output.status, said.trim());
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("read the status of {}", self.host.name))
    }

    /// Waits until it forwards to all real servers as soon as its virtual router is `state`, and
    /// this it is: `active` or `backup`.
    pub fn wait_ready(&mut self, state: &str, limit: Duration) -> anyhow::Result<Status> {
        let name = self.host.name;
        let result = wait_for(&format!("{name} {state} and ready"), limit, || {
            if let Some(exit) = self.exit_status()? {
                bail!("{name}: lbd ended: {exit}");
            }
            let status = match self.status() {
                Ok(status) => status,
                Err(error) => return Ok(Err(format!("{error:#}"))),
            };
            Ok(if is_ready(&status, state) { Ok(status) } else { Err(summary(&status)) })
        });
        result.with_context(|| self.diagnosis())
    }

    /// Waits until its virtual router is `state`, whatever the services are.
    pub fn wait_state(&self, state: &str, limit: Duration) -> anyhow::Result<()> {
        let result = wait_for(&format!("{} {state}", self.host.name), limit, || {
            let status = match self.status() {
                Ok(status) => status,
                Err(error) => return Ok(Err(format!("{error:#}"))),
            };
            let seen = router_state(&status);
            Ok(if seen == Some(state) { Ok(()) } else { Err(summary(&status)) })
        });
        result.with_context(|| self.diagnosis())
    }

    /// SIGTERM: it resigns and cleans up. Does not wait.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// SIGHUP: it reads its configuration again. Does not wait.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGHUP)
    }

    /// SIGKILL: no resignation, nothing cleaned up; its pinned datapath stays.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGKILL)
    }

    pub fn wait_exit(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let name = self.host.name;
        let status = wait_for(&format!("the end of lbd of {name}"), limit, || {
            Ok(self.exit_status()?.ok_or_else(|| "it runs".to_owned()))
        });
        let status = status.with_context(|| self.diagnosis())?;
        self.lbd = None;
        Ok(status)
    }

    /// Makes ready to cut the power, so that the cut itself takes no time.
    pub fn arm_power_cut(&self) -> anyhow::Result<PowerCut> {
        let mut command = Command::new("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped());
        let mut ip = self.lab.switch.spawn(&mut command)?;
        let Some(stdin) = ip.stdin.take() else { bail!("ip without an input") };
        Ok(PowerCut { line: format!("link set {} down\n", self.host.name), stdin, ip })
    }

    /// Power loss: in the same instant the link is cut and the daemon is gone.
    pub fn lose_power(&self, mut cut: PowerCut) -> anyhow::Result<()> {
        cut.stdin.write_all(cut.line.as_bytes()).context("cut the link")?;
        self.kill()?;
        drop(cut.stdin);
        let status = cut.ip.wait().context("cut the link")?;
        ensure!(status.success(), "cut the link of {}: {status}", self.host.name);
        Ok(())
    }

    /// What a reboot leaves behind: the configuration and the log, and nothing else. Its link
    /// is up again; `lbd` is not started.
    pub fn reboot(&mut self) -> anyhow::Result<()> {
        if self.is_running() {
            self.kill()?;
        }
        if self.lbd.is_some() {
            self.wait_exit(Duration::from_secs(5))?;
        }
        // Before the interface goes: the link that is pinned there is to the interface.
        leftovers::remove_dir(&self.state_dir());
        let _ = fs::remove_file(self.socket());
        self.far_end = None;
        self.lab.replug(self.host)?;
        self.far_end = Some(self.lab.allow_native_xdp(self.host)?);
        Ok(())
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.join("lbd.toml")
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.join("lbd.log")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("lbd.sock")
    }

    /// The end of the log, and the addresses: for the reader of a failure.
    pub fn diagnosis(&self) -> String {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let end = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
        let mut show = Command::new("ip");
        let addresses = self.host.netns.run(show.args(["-br", "addr"]));
        let addresses =
            addresses.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        format!(
            "{name}: the end of its log:\n{}\n{name}: its addresses:\n{}",
            end.join("\n"),
            addresses.unwrap_or_else(|error| error.to_string()).trim_end(),
            name = self.host.name
        )
    }

    fn exit_status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(lbd) = &mut self.lbd else { bail!("{} was not started", self.host.name) };
        lbd.try_wait().context("look after lbd")
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let Some(lbd) = &self.lbd else { bail!("{signal} to {}: not started", self.host.name) };
        let pid = Pid::from_raw(i32::try_from(lbd.id()).context("read a PID")?);
        kill(pid, signal).with_context(|| format!("{signal} to lbd of {}", self.host.name))
    }
}

impl Drop for Director<'_> {
    fn drop(&mut self) {
        if let Some(lbd) = &mut self.lbd {
            let _ = lbd.kill();
            let _ = lbd.wait();
        }
        leftovers::unmount_below(&self.dir);
    }
}

/// An `ip` in the switch that waits for the word.
pub struct PowerCut {
    ip: Child,
    stdin: ChildStdin,
    line: String,
}

/// The state of its only virtual router.
pub fn router_state(status: &Status) -> Option<&str> {
    status.virtual_routers.first().map(|router| router.state.as_str())
}

fn is_ready(status: &Status, state: &str) -> bool {
    let complete = |service: &lb_daemon::control::Service| {
        service.real_servers > 0 && service.real_servers_ready == service.real_servers
    };
    router_state(status) == Some(state)
        && !status.virtual_services.is_empty()
        && status.virtual_services.iter().all(complete)
}

fn summary(status: &Status) -> String {
    let services = status.virtual_services.iter().map(|service| {
        format!(
            "{}: {} of {} ready",
            service.name, service.real_servers_ready, service.real_servers
        )
    });
    let services: Vec<_> = services.collect();
    format!("{}; {}", router_state(status).unwrap_or("no virtual router"), services.join(", "))
}
