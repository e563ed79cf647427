//! `lbd` on the director of the cables: one UDP service by DR, whose real server is the client.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail};
use lb_daemon::control::Status;

use super::cable::{CLIENT, Cable, TO_CLIENT, VIP};
use crate::{
    director::{Binaries, READY_LIMIT},
    interrupt::wait_for,
};

/// The port of the service.
pub(super) const PORT: u16 = 53;

/// Ended when dropped.
pub(super) struct Lbd {
    child: Child,
    log: PathBuf,
}

impl Lbd {
    /// Started, and ready to forward.
    pub(super) fn start(cable: &Cable, binaries: &Binaries) -> anyhow::Result<Self> {
        let dir = cable.dir();
        let (config, socket, log) =
            (dir.join("lbd.toml"), dir.join("lbd.sock"), dir.join("lbd.log"));
        let text = format!(
            "[director]\nid = \"lb1\"\ninterfaces = [\"{TO_CLIENT}\"]\nxdp-mode = \"native\"\n\n\
             [[virtual-service]]\nname = \"dns\"\naddress = \"{VIP}:{PORT}\"\nprotocol = \"udp\"\n\
             forwarding = \"dr\"\n\n[[virtual-service.real-server]]\naddress = \"{CLIENT}\"\n"
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let file = fs::File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let mut command = Command::new(&binaries.lbd);
        command.arg("--config").arg(&config).arg("--socket").arg(&socket);
        command.arg("--state-dir").arg(dir.join("state"));
        command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = cable.director.spawn(&mut command)?;
        let mut lbd = Self { child, log };
        let mut lbctl = Command::new(&binaries.lbctl);
        lbctl.arg("--socket").arg(&socket).args(["-o", "json", "status"]);
        let ready = wait_for("lbd ready to forward", READY_LIMIT, || {
            if let Some(status) = lbd.child.try_wait()? {
                bail!("lbd ended: {status}");
            }
            let output = lbctl.output().context("run lbctl")?;
            let Ok(status) = serde_json::from_slice::<Status>(&output.stdout) else {
                return Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned()));
            };
            let mut services = status.virtual_services.iter();
            Ok(match services.next() {
                Some(service) if service.real_servers_ready == 1 => Ok(()),
                Some(_) => Err("the real server is not resolved".to_owned()),
                None => Err("there is no service".to_owned()),
            })
        });
        ready.with_context(|| fs::read_to_string(&lbd.log).unwrap_or_default())?;
        Ok(lbd)
    }
}

impl Drop for Lbd {
    fn drop(&mut self) {
        super::peer::end(&mut self.child);
    }
}
