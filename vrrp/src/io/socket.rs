//! The raw socket that a virtual router advertises and listens on.

use std::{
    io::{ErrorKind, Read, Result},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, BorrowedFd},
};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

use crate::{
    checksum::PROTOCOL,
    packet::{GROUP, TTL},
};

/// Internetwork control, as routing protocols have it: queued before data.
const TOS: u32 = 0xc0;

/// A socket for IP protocol 112 on one interface.
pub(super) struct VrrpSocket {
    socket: Socket,
}

impl VrrpSocket {
    /// Joins the group on the interface; advertisements will come from `primary`, an address of it.
    pub(super) fn open(name: &str, index: u32, primary: Ipv4Addr) -> Result<Self> {
        let socket =
            Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(PROTOCOL))))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(name.as_bytes()))?;
        socket.join_multicast_v4_n(&GROUP, &InterfaceIndexOrAddress::Index(index))?;
        // Not by binding the source address: then the group would not be received.
        socket.set_multicast_if_v4(&primary)?;
        socket.set_multicast_loop_v4(false)?;
        socket.set_multicast_ttl_v4(TTL.into())?;
        socket.set_tos_v4(TOS)?;
        Ok(Self { socket })
    }

    /// Sends an advertisement; the kernel adds the IPv4 header.
    pub(super) fn send(&self, message: &[u8]) -> Result<()> {
        self.socket.send_to(message, &SockAddr::from(SocketAddrV4::new(GROUP, 0)))?;
        Ok(())
    }

    /// The next packet, from its IPv4 header on; `None` when none is queued.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>> {
        match (&self.socket).read(buffer) {
            Ok(len) => Ok(buffer.get(..len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for VrrpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
