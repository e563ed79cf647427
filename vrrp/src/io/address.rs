//! The addresses of interfaces, read and changed through netlink.

use std::{
    io::{Error, ErrorKind, Result},
    net::IpAddr,
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

use super::Vip;

/// Larger than any datagram of a dump: the kernel fills at most 32 KiB.
const BUFFER_LEN: usize = 64 * 1024;
/// How often to ask for a list that is whole: one that changes while it is read is not.
const LIST_ATTEMPTS: u32 = 3;

/// A netlink socket for addresses.
///
/// It is used synchronously: the kernel has queued the answer by the time that a send returns.
pub(super) struct Addresses {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Addresses {
    pub(super) fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER_LEN) })
    }

    /// The IPv4 addresses of all interfaces, with the index of the interface, in the kernel's order.
    pub(super) fn list(&mut self) -> Result<Vec<(u32, Vip)>> {
        let mut attempt = 1;
        loop {
            match self.list_once() {
                Err(error) if error.kind() == ErrorKind::Interrupted && attempt < LIST_ATTEMPTS => {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn list_once(&mut self) -> Result<Vec<(u32, Vip)>> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        let mut found = Vec::new();
        self.request(
            RouteNetlinkMessage::GetAddress(request),
            NLM_F_REQUEST | NLM_F_DUMP,
            |message| {
                found.extend(local_address(&message).map(|vip| (message.header.index, vip)));
            },
        )?;
        Ok(found)
    }

    /// Adds an address; one that is there already is fine.
    pub(super) fn add(&mut self, interface: u32, vip: Vip) -> Result<()> {
        let message = message(interface, vip);
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.request(RouteNetlinkMessage::NewAddress(message), flags, |_| {}) {
            Err(error) if is(&error, Errno::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Removes an address; one that is not there, or is gone with its interface, is fine. The same
    /// address with a prefix of another length stays: it is not ours.
    pub(super) fn remove(&mut self, interface: u32, vip: Vip) -> Result<()> {
        let message = message(interface, vip);
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        match self.request(RouteNetlinkMessage::DelAddress(message), flags, |_| {}) {
            Err(error) if is(&error, Errno::EADDRNOTAVAIL) || is(&error, Errno::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// Sends a request and reads up to its acknowledgement or the end of its dump.
    fn request(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(AddressMessage),
    ) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(request));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut changed_meanwhile = false;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            let mut rest = self.buffer.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| Error::new(ErrorKind::InvalidData, error.to_string()))?;
                let len = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                changed_meanwhile |= message.header.flags & NLM_F_DUMP_INTR != 0;
                let payload = message.payload;
                if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) =
                    payload
                {
                    each(address);
                } else if let NetlinkPayload::Error(error) = payload {
                    return if error.code.is_some() { Err(error.to_io()) } else { Ok(()) };
                } else if let NetlinkPayload::Done(_) = payload {
                    let interrupted = "the addresses changed while they were listed";
                    return if changed_meanwhile {
                        Err(Error::new(ErrorKind::Interrupted, interrupted))
                    } else {
                        Ok(())
                    };
                }
            }
        }
    }
}

fn message(interface: u32, vip: Vip) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = vip.prefix_len;
    message.header.index = interface;
    message.attributes.push(AddressAttribute::Local(vip.address.into()));
    // Without it the kernel does not look at the length of the prefix when it removes an address.
    message.attributes.push(AddressAttribute::Address(vip.address.into()));
    message
}

fn local_address(message: &AddressMessage) -> Option<Vip> {
    message.attributes.iter().find_map(|attribute| {
        if let AddressAttribute::Local(IpAddr::V4(address)) = attribute {
            Some(Vip { address: *address, prefix_len: message.header.prefix_len })
        } else {
            None
        }
    })
}

fn is(error: &Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}
