//! What a daemon puts on the machine beside its pins, written down in the state directory, so that
//! the next one can take back what a killed one left and the configuration no longer names.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt;
use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::config::{Config, Vip, VirtualRouter};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Traces {
    vips: BTreeSet<HeldVip>,
    /// Made managed neighbours.
    pub(super) real_servers: BTreeSet<Ipv4Addr>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct HeldVip {
    interface: String,
    address: Ipv4Addr,
    prefix_len: u8,
}

impl Traces {
    /// What runs of this configuration can leave.
    pub(super) fn of(config: &Config) -> Self {
        let vips = |router: &VirtualRouter| {
            let held = |vip: Vip| HeldVip {
                interface: router.interface.clone(),
                address: vip.address,
                prefix_len: vip.prefix_len,
            };
            router.all_vips().map(held).collect::<Vec<_>>()
        };
        Self {
            vips: config.virtual_routers.iter().flat_map(vips).collect(),
            real_servers: config.real_server_addresses(),
        }
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        Self {
            vips: self.vips.union(&other.vips).cloned().collect(),
            real_servers: self.real_servers.union(&other.real_servers).copied().collect(),
        }
    }

    /// What the last daemon wrote; nothing where that cannot be read.
    pub(super) fn load(state_dir: &Path) -> Self {
        let Ok(text) = fs::read(file(state_dir)) else { return Self::default() };
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub(super) fn save(&self, state_dir: &Path) -> io::Result<()> {
        let mut next = tempfile::NamedTempFile::new_in(state_dir)?;
        serde_json::to_writer(&mut next, self)?;
        next.persist(file(state_dir))?;
        Ok(())
    }

    /// After a stop there is nothing left.
    pub(super) fn forget(state_dir: &Path) {
        let _ = fs::remove_file(file(state_dir));
    }

    /// Removes the VIPs that `kept` does not have.
    pub(super) async fn remove_vips_except(&self, kept: &Self) {
        let gone: Vec<_> = self.vips.difference(&kept.vips).collect();
        if gone.is_empty() {
            return;
        }
        let removed = match rtnetlink::new_connection() {
            Ok((connection, handle, _)) => {
                tokio::spawn(connection);
                remove(&handle, &gone).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = removed {
            warn!(%error, "remove the VIPs that a former lbd left");
        }
    }
}

async fn remove(handle: &rtnetlink::Handle, gone: &[&HeldVip]) -> Result<(), rtnetlink::Error> {
    for vip in gone {
        let Ok(index) = if_nametoindex(vip.interface.as_str()) else { continue };
        let mut found = handle
            .address()
            .get()
            .set_link_index_filter(index)
            .set_address_filter(IpAddr::V4(vip.address))
            .execute();
        while let Some(message) = found.try_next().await? {
            if message.header.prefix_len == vip.prefix_len {
                handle.address().del(message).execute().await?;
                let interface = &vip.interface;
                info!(vip = %vip.address, interface, "removed a VIP that a former lbd left");
            }
        }
    }
    Ok(())
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("traces.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_survive_the_daemon_and_a_damaged_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let text = "[[virtual-router]]\nname = \"a\"\ninterface = \"eth0\"\nvrid = 1\n\
                    vips = [\"192.0.2.1/24\"]\n";
        let config = crate::config::load(Path::new("a.toml"), text).unwrap();
        let traces = Traces::of(&config);
        assert_eq!(traces.vips.len(), 1);
        traces.save(dir.path()).unwrap();
        assert_eq!(Traces::load(dir.path()), traces);

        fs::write(file(dir.path()), "{").unwrap();
        assert_eq!(Traces::load(dir.path()), Traces::default());
        Traces::forget(dir.path());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
