//! What is measured: a program, the packet that it is given, and how many flows there are.

use std::net::Ipv4Addr;

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

use super::director::{CHANGED_PORT, MAC, NOTED_PORT, TCP_PORT, UDP_PORT, VIP};

/// As the entry program has it.
pub(super) const FRAME_LEN: usize = 64;
const FLOWS: [u32; 3] = [1, 65_536, 1_000_000];

/// A line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Part of the interface: a name is never given to another case.
    pub name: &'static str,
    pub flows: u32,
    pub(super) subject: Subject,
    pub(super) frame: [u8; FRAME_LEN],
    /// What the program does with every packet, or it is not the one that is meant.
    pub(super) expected: Action,
}

/// The program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// Run by the kernel's loop itself. It changes nothing, so there is nothing to restore.
    FloorPass,
    /// The same, after the entry program: what is dearer is the entry's own cost.
    Entry,
    FloorTx,
    Director,
}

/// include/uapi/linux/bpf.h, `enum xdp_action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Pass = 2,
    Transmit = 3,
}

impl Case {
    fn new(name: &'static str, subject: Subject, frame: [u8; FRAME_LEN], expected: Action) -> Self {
        Self { name, flows: 1, subject, frame, expected }
    }

    fn for_each_number_of_flows(self) -> impl Iterator<Item = Self> {
        FLOWS.into_iter().map(move |flows| Self { flows, ..self.clone() })
    }

    /// What measures the entry program itself, for cases with `flows`.
    pub(super) fn is_entry_for(&self, flows: u32) -> bool {
        self.subject == Subject::Entry && self.flows == flows
    }
}

/// Every case, in the order of the report.
pub fn cases() -> Vec<Case> {
    let tcp = tcp(TCP_PORT, Flag::Ack);
    let mut cases = vec![
        Case::new("floor-pass", Subject::FloorPass, tcp, Action::Pass),
        Case::new("floor-tx", Subject::FloorTx, tcp, Action::Transmit),
    ];
    for case in [
        Case::new("entry", Subject::Entry, tcp, Action::Pass),
        Case::new("tcp4-dr", Subject::Director, tcp, Action::Transmit),
        Case::new("syn4-dr", Subject::Director, self::tcp(TCP_PORT, Flag::Syn), Action::Transmit),
        Case::new("udp4-dr", Subject::Director, udp(UDP_PORT), Action::Transmit),
        // Of flows that are older than the change.
        Case::new(
            "tcp4-dr-changed-slot",
            Subject::Director,
            self::tcp(CHANGED_PORT, Flag::Ack),
            Action::Transmit,
        ),
        // With a million flows: a flood, most of which is forgotten at once.
        Case::new(
            "syn4-dr-changed-slot",
            Subject::Director,
            self::tcp(NOTED_PORT, Flag::Syn),
            Action::Transmit,
        ),
        // The VIP is ours, the port is not: the longest way to a packet that is passed.
        Case::new("non-vip", Subject::Director, self::tcp(TCP_PORT + 1, Flag::Ack), Action::Pass),
    ] {
        cases.extend(case.for_each_number_of_flows());
    }
    cases
}

#[derive(Clone, Copy)]
pub(super) enum Flag {
    Syn,
    Ack,
}

/// A network for benchmarks (RFC 2544 C.2.2), whose hosts the entry program fills in.
const SOURCES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// The entry program writes the source's address and port.
pub(super) fn tcp(port: u16, flag: Flag) -> [u8; FRAME_LEN] {
    let header = ipv4().tcp(0, port, 1, 512);
    let header = match flag {
        Flag::Syn => header.syn(),
        Flag::Ack => header.ack(1),
    };
    let mut frame = [0; FRAME_LEN];
    header.write(&mut frame.as_mut_slice(), &[0; 10]).expect("54 bytes of headers, 10 of payload");
    frame
}

fn udp(port: u16) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    let header = ipv4().udp(0, port);
    header.write(&mut frame.as_mut_slice(), &[0; 22]).expect("42 bytes of headers, 22 of payload");
    frame
}

fn ipv4() -> PacketBuilderStep<IpHeaders> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], MAC).ipv4(SOURCES.octets(), VIP.octets(), 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;

    #[test]
    fn every_case_has_a_whole_packet_of_its_own() {
        let cases = cases();
        let names: BTreeSet<_> = cases.iter().map(|case| (case.name, case.flows)).collect();
        assert_eq!(names.len(), cases.len());
        for case in &cases {
            let packet = SlicedPacket::from_ethernet(&case.frame).unwrap();
            let transport = packet.transport.unwrap();
            assert_eq!(case.name == "udp4-dr", matches!(transport, TransportSlice::Udp(_)));
            if let TransportSlice::Tcp(tcp) = transport {
                assert_eq!(tcp.syn(), case.name.starts_with("syn4-dr"));
                let other = case.name == "non-vip" || case.name.ends_with("changed-slot");
                assert_eq!(tcp.destination_port() == TCP_PORT, !other);
            }
        }
    }

    #[test]
    fn every_number_of_flows_has_an_entry_to_take_off() {
        for case in cases() {
            assert!(cases().iter().any(|entry| entry.is_entry_for(case.flows)));
        }
    }
}
