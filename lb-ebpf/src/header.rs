//! Headers we overlay on packets, named as in their RFCs: fields and accessors only.

use crate::{flow::Phase, packet::header};

header! {
    /// Ethernet II.
    Ethernet { dst: 6, src: 6, ethertype: 2, }
}

impl Ethernet {
    pub const IPV4: [u8; 2] = 0x0800_u16.to_be_bytes();
}

header! {
    /// IPv4 without options (RFC 791 §3.1).
    Ipv4 {
        version_ihl: 1, tos: 1, total_len: 2, id: 2, flags_fragment: 2,
        ttl: 1, protocol: 1, checksum: 2, src: 4, dst: 4,
    }
}

impl Ipv4 {
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;

    /// Header length in bytes, options included; `None` for another version or a length below
    /// the legal minimum.
    #[inline(always)]
    pub fn header_len(&self) -> Option<u16> {
        let [version_ihl] = self.version_ihl;
        let words = version_ihl & 0x0f;
        if version_ihl >> 4 != 4 || words < 5 { None } else { Some(u16::from(words) * 4) }
    }

    /// Header and payload, in bytes.
    #[inline(always)]
    pub fn total_len(&self) -> u16 {
        u16::from_be_bytes(self.total_len)
    }

    /// True for any piece of a fragmented packet; only the first piece carries ports.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        u16::from_be_bytes(self.flags_fragment) & 0x3fff != 0
    }

    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.protocol[0]
    }
}

header! {
    /// TCP without options (RFC 9293 §3.1).
    Tcp {
        src: 2, dst: 2, sequence: 4, acknowledgment: 4,
        offset: 1, flags: 1, window: 2, checksum: 2, urgent: 2,
    }
}

impl Tcp {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;

    #[inline(always)]
    pub fn phase(&self) -> Phase {
        let [flags] = self.flags;
        if flags & Self::RST != 0 {
            Phase::Reset
        } else if flags & Self::FIN != 0 {
            Phase::Closing
        } else if flags & (Self::SYN | Self::ACK) == Self::SYN {
            Phase::Opening
        } else {
            Phase::Middle
        }
    }
}

header! {
    /// UDP (RFC 768).
    Udp { src: 2, dst: 2, len: 2, checksum: 2, }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Offset, Packet};

    #[test]
    fn header_len_refuses_another_version_and_a_short_ihl() {
        let cases = [(0x40, None), (0x44, None), (0x45, Some(20)), (0x4f, Some(60)), (0x65, None)];
        for (version_ihl, want) in cases {
            let mut bytes = [0u8; 20];
            bytes[0] = version_ihl;
            let packet = Packet::from_frame(&mut bytes);
            let ip = packet.view::<Ipv4>(Offset::START).unwrap();
            assert_eq!(ip.header_len(), want, "{version_ihl:#x}");
        }
    }
}
