//! `XDP_PASS` on an interface: what the far end of a veth pair needs for native `XDP_TX`.
//!
//! Two instructions do not deserve an object file, which is all that aya loads.

use std::os::fd::OwnedFd;

use anyhow::Context;
use nix::net::if_::if_nametoindex;

use crate::{bpf, netns::Netns};

/// The program on one interface; detached when dropped, or when the process ends.
pub struct XdpPass {
    _link: OwnedFd,
}

impl XdpPass {
    /// Attaches to `interface` in `netns`, in native mode.
    pub fn attach(netns: &Netns, interface: &str) -> anyhow::Result<Self> {
        netns
            .enter(|| {
                let index = if_nametoindex(interface)?;
                // r0 = 2 (XDP_PASS); exit
                let program =
                    bpf::load_xdp(&[[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]])?;
                bpf::link_native_xdp(&program, index)
            })?
            .map(|link| Self { _link: link })
            .with_context(|| format!("attach XDP_PASS to {interface} in {}", netns.name()))
    }
}
