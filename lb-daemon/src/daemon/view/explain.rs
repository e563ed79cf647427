//! Why a flow goes where it goes: the loaded program's own answer, in words.

use etherparse::{PacketBuilder, TcpHeader, err::packet::BuildVecWriteError};
use lb_ebpf::verdict::{Action, Verdict};

use super::{
    super::{api::Link, running::Running},
    Services,
    datapath::{Answer, ask},
};
use crate::{
    control::{
        Choice, Explanation, FlowQuery, Forwards, Hop, Neighbour, PacketKind, Refusal, RefusalKind,
        Service,
    },
    service::Protocol,
};

/// Of the host that the packet would come from; no real one has it.
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const TTL: u8 = 64;
const WINDOW: u16 = 65_535;

pub(in crate::daemon) fn explain(
    running: &mut Running,
    query: &FlowQuery,
    link: &Link,
) -> Result<Explanation, Refusal> {
    query.check()?;
    let frame = frame(query, link.mac).map_err(|error| {
        Refusal::new(RefusalKind::Failed, format!("build a packet of the flow: {error}"))
    })?;
    let answer = ask(running, &frame, link.index)?;
    let routers = running.routers();
    let services = Services::of(running);
    let service = match &answer.service {
        Some(name) => Some(services.service(services.find(name)?, &routers)),
        None => None,
    };
    let hop = answer.real_server.map(|real_server| services.hop(real_server));
    Ok(explanation(query, link, answer, service.as_ref(), hop))
}

/// A packet of the flow without payload, as it comes in.
fn frame(query: &FlowQuery, director_mac: [u8; 6]) -> Result<Vec<u8>, BuildVecWriteError> {
    let (src, dst) = (query.src, query.dst);
    let packet = PacketBuilder::ethernet2(PEER_MAC, director_mac).ipv4(
        src.ip().octets(),
        dst.ip().octets(),
        TTL,
    );
    let mut frame = Vec::new();
    match query.protocol {
        Protocol::Tcp => {
            let opening = query.packet == PacketKind::Opening;
            let mut header = TcpHeader::new(src.port(), dst.port(), 1, WINDOW);
            (header.syn, header.ack) = (opening, !opening);
            packet.tcp_header(header).write_to_vec(&mut frame, &[])?;
        }
        Protocol::Udp => {
            packet.udp(src.port(), dst.port()).write_to_vec(&mut frame, &[])?;
        }
    }
    Ok(frame)
}

fn explanation(
    query: &FlowQuery,
    link: &Link,
    answer: Answer,
    service: Option<&Service>,
    neighbour: Option<Hop>,
) -> Explanation {
    let action = match answer.verdict.action() {
        Action::Transmit => "transmit",
        Action::Pass => "pass",
        Action::Drop => "drop",
    };
    Explanation {
        src: query.src,
        dst: query.dst,
        protocol: query.protocol,
        packet: query.packet,
        interface: link.name.clone(),
        verdict: answer.verdict.name().to_owned(),
        action: action.to_owned(),
        service: service.map(|service| service.name.clone()),
        active: service.is_some_and(|service| service.forwards != Forwards::NotActive),
        hash: service.map(|service| service.hash),
        slot: answer.slot,
        current: answer.current,
        previous: answer.previous,
        real_server: answer.real_server,
        choice: answer.choice,
        why: why(query, link, &answer),
        mode: service.map(|service| service.forwarding),
        mtu: link.mtu.filter(|_| answer.real_server.is_some()),
        warnings: warnings(link, &answer, neighbour.as_ref()),
        neighbour,
    }
}

/// How the real server was chosen, and what became of the packet if it was not sent there.
fn why(query: &FlowQuery, link: &Link, answer: &Answer) -> String {
    let chosen = answer.choice.map(sentence);
    match (chosen, problem(query, link, answer)) {
        // There was nobody to choose.
        (Some(_), Some(problem)) if answer.verdict == Verdict::NoRealServer => problem,
        (Some(chosen), Some(problem)) => format!("{chosen}; but {problem}"),
        (Some(chosen), None) => chosen.to_owned(),
        (None, Some(problem)) => problem,
        (None, None) => "the service sends it there".to_owned(),
    }
}

fn sentence(choice: Choice) -> &'static str {
    match choice {
        Choice::Steady => "the slot has one owner, as no change of it is in progress",
        Choice::Opening => "a SYN opens a flow: it goes to who owns the slot now, and is noted",
        Choice::Noted => "the flow table names it, as the flow began after the change",
        Choice::Previous => {
            "the flow is older than the change: it stays with who owned the slot before"
        }
        Choice::Rehashed => {
            "the flow's real server is gone: the flow goes to who owns the slot now \
             (on-down = rehash)"
        }
        Choice::Reset => {
            "the flow's real server is gone: the director answers with a reset (on-down = reset)"
        }
        Choice::Overflow => {
            "the flow table is full and cannot note the flow: it goes to who owned the slot before"
        }
    }
}

/// Why the packet does not go to a real server; `None` where it does.
fn problem(query: &FlowQuery, link: &Link, answer: &Answer) -> Option<String> {
    let FlowQuery { dst, protocol, .. } = query;
    let real_server =
        answer.real_server.map_or("the real server".to_owned(), |server| server.to_string());
    Some(match answer.verdict {
        Verdict::Forwarded | Verdict::Reset => return None,
        Verdict::NotVirtualService => {
            format!("no virtual service has {dst}/{protocol}: the kernel takes the packet")
        }
        Verdict::NotActive => "the virtual router of the VIP is not active on this director: the \
                               kernel takes the packet"
            .to_owned(),
        Verdict::NotAddressedToUs => {
            format!("{} has another MAC address than the datapath knows", link.name)
        }
        Verdict::NoRealServer => "no real server of the service takes flows".to_owned(),
        Verdict::NoNeighbour => format!("the MAC address of {real_server} is not known"),
        Verdict::OtherInterface => {
            format!("{real_server} is behind another interface than {}", link.name)
        }
        Verdict::RealServerGone => "no reset answers this packet".to_owned(),
        // Nothing that a frame of ours has.
        Verdict::NotIpv4
        | Verdict::Truncated
        | Verdict::BadIpv4Header
        | Verdict::OtherProtocol
        | Verdict::Fragment => "the packet is no TCP or UDP over IPv4".to_owned(),
    })
}

fn warnings(link: &Link, answer: &Answer, neighbour: Option<&Hop>) -> Vec<String> {
    let mut warnings = Vec::new();
    if link.others > 0 {
        warnings.push(format!(
            "the packet is taken to come in by {}: name another interface with --interface",
            link.name
        ));
    }
    if let (Some(real_server), Some(hop)) = (answer.real_server, neighbour)
        && hop.state != Neighbour::Ready
        && answer.verdict == Verdict::Forwarded
    {
        warnings.push(format!(
            "{real_server} does not answer ARP: the packet goes to the MAC address that it had"
        ));
    }
    if answer.choice == Some(Choice::Overflow) {
        warnings.push(
            "the flow table is full: new flows join older ones until the change ends; raise \
             flow-table-size in [director]"
                .to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use lb_ebpf::{
        flow::{self, FlowKey},
        packet::Packet,
    };

    use super::*;
    use crate::control::PreviousOwner;

    #[test]
    fn the_frame_is_a_packet_of_the_flow_as_the_datapath_reads_it() {
        for (protocol, packet, number, syn) in [
            (Protocol::Tcp, PacketKind::Opening, 6, Some(true)),
            (Protocol::Tcp, PacketKind::Other, 6, Some(false)),
            (Protocol::Udp, PacketKind::Other, 17, None),
        ] {
            let query = FlowQuery { protocol, packet, ..query() };
            let mut frame = frame(&query, link().mac).unwrap();
            let flags = frame.get(47).map(|flags| flags & 0x17);
            let key = flow::parse(&Packet::from_frame(&mut frame)).unwrap().key;
            let ports = (40_000_u16.to_be_bytes(), 80_u16.to_be_bytes());
            let (src, dst) = ([10, 77, 0, 1], [10, 77, 0, 100]);
            assert_eq!(key, FlowKey::new(src, dst, ports.0, ports.1, number));
            assert_eq!(&frame[..6], &link().mac);
            if let Some(syn) = syn {
                assert_eq!(flags, Some(if syn { 0x02 } else { 0x10 }));
            }
        }
    }

    #[test]
    fn a_sentence_says_how_the_real_server_was_chosen_and_what_hinders_it() {
        let mut answer = Answer {
            verdict: Verdict::Forwarded,
            service: None,
            slot: Some(7),
            current: Some([10, 77, 0, 12].into()),
            previous: Some(PreviousOwner { address: [10, 77, 0, 11].into(), down: true }),
            real_server: Some([10, 77, 0, 12].into()),
            choice: Some(Choice::Rehashed),
        };
        let rehashed = "the flow's real server is gone: the flow goes to who owns the slot now \
                        (on-down = rehash)";
        assert_eq!(why(&query(), &link(), &answer), rehashed);
        answer.verdict = Verdict::NoNeighbour;
        assert_eq!(
            why(&query(), &link(), &answer),
            format!("{rehashed}; but the MAC address of 10.77.0.12 is not known")
        );
        (answer.verdict, answer.choice) = (Verdict::NotVirtualService, None);
        assert_eq!(
            why(&query(), &link(), &answer),
            "no virtual service has 10.77.0.100:80/tcp: the kernel takes the packet"
        );
    }

    #[test]
    fn what_makes_an_answer_doubtful_is_a_warning() {
        let unresolved = Hop { state: Neighbour::Unresolved, mac: None, interface: None };
        let answer = Answer {
            verdict: Verdict::Forwarded,
            service: None,
            slot: None,
            current: None,
            previous: None,
            real_server: Some([10, 77, 0, 12].into()),
            choice: Some(Choice::Overflow),
        };
        let all = warnings(&Link { others: 1, ..link() }, &answer, Some(&unresolved));
        assert_eq!(all.len(), 3, "{all:?}");
        let ready = Hop { state: Neighbour::Ready, ..unresolved };
        let answer = Answer { choice: Some(Choice::Steady), ..answer };
        assert_eq!(warnings(&link(), &answer, Some(&ready)), [""; 0]);
    }

    fn query() -> FlowQuery {
        FlowQuery {
            src: "10.77.0.1:40000".parse().unwrap(),
            dst: "10.77.0.100:80".parse().unwrap(),
            protocol: Protocol::Tcp,
            packet: PacketKind::Other,
            interface: None,
        }
    }

    fn link() -> Link {
        Link {
            name: "eth0".to_owned(),
            index: 2,
            mac: [2, 0, 0, 0, 0, 0xa1],
            mtu: Some(1500),
            others: 0,
        }
    }
}
