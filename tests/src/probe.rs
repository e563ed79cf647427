//! The client's view of the VIP: an ICMP echo every millisecond, and who answers.
//!
//! Answers and gratuitous ARP are read with the kernel's time of arrival and the MAC address of
//! the sender, so that a busy machine delays neither, and each director is told from the other.

use std::{
    collections::BTreeSet,
    io::{self, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4},
    ops::Range,
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type};
use nix::{
    libc,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::{
    lab::{Host, Mac},
    report::Probes,
};

pub const INTERVAL: Duration = Duration::from_millis(1);
/// How long an answer may take before its probe counts as lost.
const GRACE: Duration = Duration::from_millis(50);

/// A sign of life of the VIP, as the client's interface saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When the kernel received it.
    pub at: SystemTime,
    pub from: Mac,
    pub sign: Sign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A gratuitous ARP for the VIP.
    Garp,
    /// The answer to the probe with this number.
    Answer(u32),
}

/// Probes `vip` until it is finished or dropped.
pub struct Probe {
    stop: Arc<AtomicBool>,
    /// How many have left; the number of the next one.
    sent: Arc<AtomicU32>,
    sightings: Arc<Mutex<Vec<Sighting>>>,
    sender: Option<JoinHandle<anyhow::Result<()>>>,
    receiver: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Probe {
    pub fn start(client: &Host, vip: Ipv4Addr) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let sightings = Arc::new(Mutex::new(Vec::new()));
        // Opened before the first probe leaves, so that no answer is missed.
        let socket = client.netns.enter(|| open_receiver(vip))?.context("open a packet socket")?;
        let receiver = client.netns.spawn_thread("probe-rx", {
            let (stop, sightings) = (Arc::clone(&stop), Arc::clone(&sightings));
            move || receive(&socket, vip, &stop, &sightings)
        })?;
        let sent = Arc::new(AtomicU32::new(0));
        let sender = client.netns.spawn_thread("probe-tx", {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || send(vip, &stop, &sent)
        })?;
        Ok(Self { stop, sent, sightings, sender: Some(sender), receiver: Some(receiver) })
    }

    /// What was seen so far, in order of arrival.
    pub fn sightings(&self) -> MutexGuard<'_, Vec<Sighting>> {
        self.sightings.lock().expect("no holder panics")
    }

    /// Whether `from` has answered a probe since `since`.
    pub fn answered(&self, from: Mac, since: SystemTime) -> bool {
        let sightings = self.sightings();
        let answers = sightings.iter().rev().take_while(|sighting| sighting.at >= since);
        answers.into_iter().any(|one| one.from == from && matches!(one.sign, Sign::Answer(_)))
    }

    /// The number of the next probe.
    pub fn next_number(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops, and counts; runs of losses from the probe with the number `event` on.
    pub fn finish(mut self, event: u32) -> anyhow::Result<(Vec<Sighting>, Probes)> {
        self.stop.store(true, Ordering::Relaxed);
        join(self.sender.take())?;
        join(self.receiver.take())?;
        let sent = self.next_number();
        let sightings = std::mem::take(&mut *self.sightings());
        let answered: BTreeSet<u32> = sightings.iter().filter_map(Sighting::answer).collect();
        let probes = Probes {
            sent: sent.into(),
            lost: u64::from(sent).saturating_sub(answered.len() as u64),
            longest_loss: longest_run(&answered, event..sent),
        };
        Ok((sightings, probes))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Sighting {
    fn answer(&self) -> Option<u32> {
        match self.sign {
            Sign::Answer(number) => Some(number),
            Sign::Garp => None,
        }
    }
}

/// The longest run of `probes` that nobody answered.
///
/// By their numbers, not by time: a sender that had to wait for the CPU has sent less, and lost
/// nothing by it.
fn longest_run(answered: &BTreeSet<u32>, probes: Range<u32>) -> u64 {
    let answered = answered.range(probes.clone()).copied().chain([probes.end]);
    let runs = answered.scan(probes.start, |next, answer| {
        let run = answer.saturating_sub(*next);
        *next = answer + 1;
        Some(run)
    });
    runs.max().unwrap_or_default().into()
}

fn join(thread: Option<JoinHandle<anyhow::Result<()>>>) -> anyhow::Result<()> {
    thread.map_or(Ok(()), |thread| {
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The identifier of our echo requests; a namespace has no other pinger.
const ECHO_ID: u16 = 0x7a4d;

fn send(vip: Ipv4Addr, stop: &AtomicBool, sent: &AtomicU32) -> anyhow::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))
        .context("open an ICMP socket")?;
    // The answers are read elsewhere.
    socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).context("attach a filter")?;
    let target = SocketAddrV4::new(vip, 0).into();
    let mut next = Instant::now();
    let mut number = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        let payload = number.to_be_bytes();
        // The sequence number is only for the reader of a capture, and may wrap.
        let [_, _, high, low] = payload;
        let echo = IcmpEchoHeader { id: ECHO_ID, seq: u16::from_be_bytes([high, low]) };
        let header = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), &payload);
        let packet = [header.to_bytes().as_slice(), &payload].concat();
        // While nobody holds the VIP, sending may fail; that probe is lost as any other.
        let _ = socket.send_to(&packet, &target);
        number += 1;
        sent.store(number, Ordering::Relaxed);
        next += INTERVAL;
        match next.checked_duration_since(Instant::now()) {
            Some(left) => thread::sleep(left),
            // Late: a burst would tell nothing of the time that has passed.
            None => next = Instant::now(),
        }
    }
    thread::sleep(GRACE);
    Ok(())
}

fn open_receiver(vip: Ipv4Addr) -> io::Result<Socket> {
    // Network byte order, in the lower half.
    let every_protocol = libc::ETH_P_ALL.to_be() >> 16;
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(every_protocol.into()))?;
    socket.attach_filter(&arp_from_and_echo_replies(vip))?;
    socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    socket.set_recv_buffer_size(4 << 20)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    Ok(socket)
}

/// Classic BPF; the TCP traffic beside would cost far more to read than to filter.
fn arp_from_and_echo_replies(vip: Ipv4Addr) -> [SockFilter; 11] {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(JUMP_EQUAL, 0, 2, 0x0806),
        SockFilter::new(LOAD_WORD, 0, 0, 28), // ARP sender
        SockFilter::new(JUMP_EQUAL, 5, 6, vip.to_bits()),
        SockFilter::new(JUMP_EQUAL, 0, 5, 0x0800),
        SockFilter::new(LOAD_BYTE, 0, 0, 23), // protocol
        SockFilter::new(JUMP_EQUAL, 0, 3, 1),
        SockFilter::new(LOAD_BYTE, 0, 0, 34), // ICMP type
        SockFilter::new(JUMP_EQUAL, 0, 1, 0),
        SockFilter::new(RETURN, 0, 0, 0xffff),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn receive(
    socket: &Socket,
    vip: Ipv4Addr,
    stop: &AtomicBool,
    sightings: &Mutex<Vec<Sighting>>,
) -> anyhow::Result<()> {
    let mut frame = [0; 256];
    let mut control = nix::cmsg_space!(libc::timespec);
    let mut stopped_at = None;
    while stopped_at.is_none_or(|at: Instant| at.elapsed() < GRACE) {
        if stop.load(Ordering::Relaxed) {
            stopped_at.get_or_insert_with(Instant::now);
        }
        let mut parts = [IoSliceMut::new(&mut frame)];
        let flags = MsgFlags::empty();
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)
        {
            Ok(message) => message,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => continue,
            Err(error) => return Err(error).context("read packets"),
        };
        let at = message.cmsgs().context("read the time of a packet")?.find_map(arrival);
        let len = message.bytes;
        if let (Some(at), Some((from, sign))) =
            (at, frame.get(..len).and_then(|frame| sign(frame, vip)))
        {
            sightings.lock().expect("no holder panics").push(Sighting { at, from, sign });
        }
    }
    Ok(())
}

fn arrival(message: ControlMessageOwned) -> Option<SystemTime> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "nix's enum; we asked for one kind")]
    match message {
        ControlMessageOwned::ScmTimestampns(time) => Some(UNIX_EPOCH + Duration::from(time)),
        _ => None,
    }
}

/// What a frame that passed the filter says of `vip`, and who says it.
fn sign(frame: &[u8], vip: Ipv4Addr) -> Option<(Mac, Sign)> {
    let from = Mac(frame.get(6..12)?.try_into().ok()?);
    let payload = frame.get(14..)?;
    match frame.get(12..14)? {
        [0x08, 0x06] => {
            let is_garp =
                payload.get(14..18)? == vip.octets() && payload.get(24..28)? == vip.octets();
            is_garp.then_some((from, Sign::Garp))
        }
        [0x08, 0x00] => {
            let ours = payload.get(12..16)? == vip.octets()
                && payload.get(24..26)? == ECHO_ID.to_be_bytes();
            let number = u32::from_be_bytes(payload.get(28..32)?.try_into().ok()?);
            ours.then_some((from, Sign::Answer(number)))
        }
        _ => None,
    }
}

/// How the VIP went from one director to another, as the client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// `None`: the old one did not answer since before the event.
    pub last_of_old: Option<SystemTime>,
    pub first_garp: Option<SystemTime>,
    pub first_answer: SystemTime,
}

impl Takeover {
    /// `None` when `new` has not answered since `event`.
    pub fn find(sightings: &[Sighting], event: SystemTime, old: Mac, new: Mac) -> Option<Self> {
        let is_answer = |one: &&Sighting| matches!(one.sign, Sign::Answer(_));
        let mut of_new = sightings.iter().filter(|one| one.from == new && one.at >= event);
        let first_garp = of_new.clone().find(|one| one.sign == Sign::Garp).map(|one| one.at);
        let first_answer = of_new.find(is_answer)?.at;
        let mut before = sightings.iter().filter(|one| one.from == old && one.at <= first_answer);
        let last_of_old = before.rfind(is_answer).map(|one| one.at);
        Some(Self { last_of_old, first_garp, first_answer })
    }

    /// From the last answer of the old director to the first one of the new.
    pub fn outage(&self) -> Option<Duration> {
        self.first_answer.duration_since(self.last_of_old?).ok()
    }

    /// The new director's first sign of any kind.
    pub fn first_sign(&self) -> SystemTime {
        self.first_garp.map_or(self.first_answer, |garp| garp.min(self.first_answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const NEW: Mac = Mac([2, 0, 0, 0, 0, 2]);

    #[test]
    fn the_outage_is_from_the_last_answer_of_the_old_to_the_first_of_the_new() {
        let sightings = [
            sighting(9, OLD, Sign::Answer(9)),
            sighting(11, OLD, Sign::Answer(10)),
            sighting(300, NEW, Sign::Garp),
            sighting(302, NEW, Sign::Answer(301)),
            sighting(303, OLD, Sign::Answer(302)),
        ];
        let takeover = Takeover::find(&sightings, at(10), OLD, NEW).unwrap();
        assert_eq!(takeover.outage(), Some(Duration::from_millis(291)));
        assert_eq!(takeover.first_sign(), at(300));
    }

    #[test]
    fn answers_of_the_new_one_before_the_event_are_of_another_time() {
        let sightings = [sighting(1, NEW, Sign::Answer(0)), sighting(5, OLD, Sign::Answer(4))];
        assert_eq!(Takeover::find(&sightings, at(6), OLD, NEW), None);
    }

    #[test]
    fn a_hole_after_an_early_answer_of_the_new_one_is_a_loss_in_a_row() {
        // A planned move: the new one answers 3 while the old one still does, then nobody until 9.
        let sightings = [
            sighting(2, OLD, Sign::Answer(2)),
            sighting(3, NEW, Sign::Answer(3)),
            sighting(4, OLD, Sign::Answer(4)),
            sighting(9, NEW, Sign::Answer(9)),
        ];
        let takeover = Takeover::find(&sightings, at(3), OLD, NEW).unwrap();
        assert_eq!(takeover.outage(), Some(Duration::from_millis(1)));
        let answered = sightings.iter().filter_map(Sighting::answer).collect();
        assert_eq!(longest_run(&answered, 3..10), 4);
        assert_eq!(longest_run(&answered, 7..10), 2, "from the event on");
        assert_eq!(longest_run(&answered, 3..20), 10, "to the last one sent");
        assert_eq!(longest_run(&answered, 2..5), 0);
        assert_eq!(longest_run(&BTreeSet::new(), 5..8), 3);
        assert_eq!(longest_run(&answered, 5..5), 0);
    }

    #[test]
    fn an_arp_reply_to_a_question_is_no_announcement() {
        let vip = Ipv4Addr::new(10, 77, 0, 100);
        let mut frame = vec![0; 42];
        frame[6..12].copy_from_slice(&OLD.0);
        frame[12..14].copy_from_slice(&[0x08, 0x06]);
        frame[28..32].copy_from_slice(&vip.octets());
        assert_eq!(sign(&frame, vip), None);
        frame[38..42].copy_from_slice(&vip.octets());
        assert_eq!(sign(&frame, vip), Some((OLD, Sign::Garp)));
        assert_eq!(sign(&frame[..20], vip), None);
    }

    fn sighting(ms: u64, from: Mac, sign: Sign) -> Sighting {
        Sighting { at: at(ms), from, sign }
    }

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms)
    }
}
