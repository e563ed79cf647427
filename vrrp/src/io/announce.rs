//! Gratuitous ARP (RFC 5227 §3): tells the hosts and switches of the LAN where a VIP is now.

use std::{
    io::{Error, Result},
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
};

use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

const BROADCAST: [u8; 6] = [0xff; 6];
/// The shortest Ethernet frame, without the checksum that the card adds.
const MIN_FRAME_LEN: usize = 60;

/// Sends gratuitous ARP on one interface.
pub(super) struct Announcer {
    socket: OwnedFd,
    link: LinkAddr,
    mac: [u8; 6],
}

impl Announcer {
    /// For the interface `link`, whose index and MAC address stay as they are now.
    pub(super) fn open(link: LinkAddr, mac: [u8; 6]) -> Result<Self> {
        // No protocol: it sends only, and nothing is ever queued for it.
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        Ok(Self { socket, link, mac })
    }

    /// Sends one announcement of `vip`.
    pub(super) fn announce(&self, vip: Ipv4Addr) -> Result<()> {
        let frame = gratuitous_arp(self.mac, vip)?;
        sendto(self.socket.as_raw_fd(), &frame, &self.link, MsgFlags::empty())?;
        Ok(())
    }
}

/// A request, as who ignores unsolicited replies still takes it in: sender and target are the VIP.
fn gratuitous_arp(mac: [u8; 6], vip: Ipv4Addr) -> Result<Vec<u8>> {
    let arp = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &mac,
        &vip.octets(),
        &[0; 6],
        &vip.octets(),
    )
    .map_err(Error::other)?;
    let mut frame = Vec::with_capacity(MIN_FRAME_LEN);
    PacketBuilder::ethernet2(mac, BROADCAST).arp(arp).write(&mut frame).map_err(Error::other)?;
    frame.resize(MIN_FRAME_LEN, 0);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_a_broadcast_request_for_the_senders_own_address() {
        let frame = gratuitous_arp([2, 0, 0, 0, 0, 7], Ipv4Addr::new(10, 77, 0, 100)).unwrap();
        #[rustfmt::skip]
        let want = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 0x08, 0x06,
            0, 1, 0x08, 0, 6, 4, 0, 1,
            2, 0, 0, 0, 0, 7, 10, 77, 0, 100,
            0, 0, 0, 0, 0, 0, 10, 77, 0, 100,
        ];
        assert_eq!(frame[..42], want);
        assert_eq!(frame[42..], [0; 18]);
    }
}
