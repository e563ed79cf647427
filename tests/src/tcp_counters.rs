//! What the TCP of a host counts (RFC 4022), and so tells of packets that took another way: they
//! did not arrive, or whoever got one that was not his answered with a reset.

use anyhow::Context;

use crate::{
    lab::{Host, Lab},
    netns::Netns,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounters {
    /// Segments, those that were sent again too.
    pub sent: u64,
    pub received: u64,
    pub resets_sent: u64,
}

impl TcpCounters {
    pub fn of(host: &Host) -> anyhow::Result<Self> {
        read(&host.netns).with_context(|| format!("read the TCP counters of {}", host.name))
    }

    /// Segments that the client has sent, and those that the real servers have received.
    pub fn sent_and_received(lab: &Lab) -> anyhow::Result<(u64, u64)> {
        let received = lab.real_servers.iter().map(|host| Ok(Self::of(host)?.received));
        Ok((Self::of(&lab.client)?.sent, received.sum::<anyhow::Result<u64>>()?))
    }

    /// Resets that each director and real server has sent.
    pub fn resets_of_all(lab: &Lab) -> anyhow::Result<Vec<(&'static str, u64)>> {
        let hosts = lab.hosts().filter(|host| host.name != lab.client.name);
        hosts.map(|host| Ok((host.name, Self::of(host)?.resets_sent))).collect()
    }
}

fn read(netns: &Netns) -> anyhow::Result<TcpCounters> {
    // Not `/proc/net`, which is that of the first thread.
    let text = netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines.next().zip(lines.next()).context("no line of TCP")?;
    let value = |wanted| {
        let mut pairs = names.split(' ').zip(values.split(' '));
        let (_, value) = pairs.find(|(name, _)| *name == wanted)?;
        value.parse::<u64>().ok()
    };
    let value = |wanted| value(wanted).with_context(|| format!("no {wanted}"));
    Ok(TcpCounters {
        // What is sent again is not among OutSegs.
        sent: value("OutSegs")? + value("RetransSegs")?,
        received: value("InSegs")?,
        resets_sent: value("OutRsts")?,
    })
}
