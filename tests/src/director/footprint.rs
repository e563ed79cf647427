//! What an `lbd` changes on its machine, as the machine has it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Context;
use aya::programs::links::{FdLink, PinnedLink};
use serde_json::Value;

use super::Director;

/// Equal before and after where everything was put back.
#[derive(Debug, PartialEq, Eq)]
pub struct Footprint {
    pub addresses: Vec<String>,
    /// The XDP programs of its interfaces.
    pub programs: Vec<String>,
    /// Neighbours that the kernel was told to keep resolved.
    pub managed_neighbours: Vec<String>,
    /// At and below the state directory.
    pub mounts: Vec<PathBuf>,
    pub has_socket: bool,
}

/// The program on an interface, as the pin of its BPF link leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The same for as long as packets never met an interface without a program.
    pub link: u32,
    /// Another one for each `lbd`.
    pub program: u32,
}

impl Director<'_> {
    pub fn footprint(&self) -> anyhow::Result<Footprint> {
        let addresses = self.ip(&["-o", "addr"])?;
        let neighbours = self.ip(&["neigh", "show"])?;
        let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
        let state_dir = self.state_dir();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
        Ok(Footprint {
            addresses: addresses.lines().map(str::to_owned).collect(),
            programs: programs(&self.ip(&["-d", "-j", "link", "show"])?)?,
            managed_neighbours: neighbours
                .lines()
                .filter(|line| line.split(' ').any(|word| word == "managed"))
                .map(str::to_owned)
                .collect(),
            mounts: points.filter(|point| point.starts_with(&state_dir)).collect(),
            has_socket: self.socket().exists(),
        })
    }

    /// Of `eth0`, in native mode.
    pub fn attachment(&self) -> anyhow::Result<Attachment> {
        let pin = self.state_dir().join("bpf/link-eth0-native");
        let context = || format!("read the BPF link at {}", pin.display());
        let link = FdLink::from(PinnedLink::from_pin(&pin).with_context(context)?);
        let info = link.info().with_context(context)?;
        Ok(Attachment { link: info.id(), program: info.program_id() })
    }

    fn ip(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.host.netns.run(Command::new("ip").args(args))?;
        String::from_utf8(output.stdout).context("read what ip said")
    }
}

/// From `ip -d -j link show`, which says no word of XDP without `-d`, and in its brief form never.
fn programs(json: &str) -> anyhow::Result<Vec<String>> {
    let links: Vec<Value> = serde_json::from_str(json).context("read the links")?;
    let with_program = links.iter().filter_map(|link| Some((&link["ifname"], link.get("xdp")?)));
    Ok(with_program.map(|(name, xdp)| format!("{name}: {xdp}")).collect())
}

#[cfg(test)]
mod tests {
    use super::programs;

    #[test]
    fn an_interface_with_a_program_is_told_from_one_without() {
        let json = r#"[{"ifname":"lo","mtu":65536},
            {"ifname":"eth0","xdp":{"mode":1,"prog":{"id":4711,"name":"director"}}}]"#;
        let programs = programs(json).unwrap();
        assert_eq!(programs.len(), 1, "{programs:?}");
        assert!(programs[0].contains("eth0") && programs[0].contains("4711"), "{programs:?}");
    }
}
