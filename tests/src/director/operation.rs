//! What an operator does to a running director: edits of the pool, and looks at it.

use std::{fmt, fs, net::Ipv4Addr};

use anyhow::{Context, ensure};
use lb_daemon::control::RealServer;

use super::Director;

/// An edit of the pool of the lab's virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    Add {
        real_server: Ipv4Addr,
        weight: u16,
    },
    /// 0 drains it.
    SetWeight {
        real_server: Ipv4Addr,
        weight: u16,
    },
    Delete {
        real_server: Ipv4Addr,
    },
}

impl Edit {
    pub fn real_server(self) -> Ipv4Addr {
        match self {
            Self::Add { real_server, .. }
            | Self::SetWeight { real_server, .. }
            | Self::Delete { real_server } => real_server,
        }
    }
}

/// As it is typed.
impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add { real_server, weight } => {
                write!(f, "real add web {real_server} --weight {weight}")
            }
            Self::SetWeight { real_server, weight } => {
                write!(f, "real set web {real_server} --weight {weight}")
            }
            Self::Delete { real_server } => write!(f, "real delete web {real_server}"),
        }
    }
}

impl Director<'_> {
    /// Done, and in use, when this returns.
    pub fn edit(&self, edit: Edit) -> anyhow::Result<()> {
        let line = edit.to_string();
        self.done(&line.split(' ').collect::<Vec<_>>()).map(drop)
    }

    /// Runs an `lbctl` that has to succeed; returns what it said.
    pub fn done(&self, args: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = self.lbctl(args)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let (name, line) = (self.host.name, args.join(" "));
        ensure!(
            output.status.success(),
            "{name}: lbctl {line}: {}: {}",
            output.status,
            said.trim()
        );
        Ok(output.stdout)
    }

    /// The share of the slots that a real server has, 0 to 1; 0 for one that is not in the pool.
    pub fn share(&self, real_server: Ipv4Addr) -> anyhow::Result<f64> {
        let said = self.done(&["-o", "json", "real", "list", "web"])?;
        let list: Vec<RealServer> = serde_json::from_slice(&said).context("read the pool")?;
        Ok(list.iter().find(|one| one.address == real_server).map_or(0.0, |one| one.share))
    }

    /// Equal on two directors that choose alike.
    pub fn table_digest(&self) -> anyhow::Result<String> {
        let status = self.status()?;
        let service = status.virtual_services.into_iter().next();
        service.map(|service| service.table_digest).context("no virtual service")
    }

    /// The configuration as it was made, in the file alone; returns whether it was another.
    pub fn restore_configuration(&self) -> anyhow::Result<bool> {
        let file = self.config_file();
        let context = || format!("restore {}", file.display());
        let edited = fs::read_to_string(&file).with_context(context)? != self.configuration;
        if edited {
            fs::write(&file, &self.configuration).with_context(context)?;
        }
        Ok(edited)
    }
}
