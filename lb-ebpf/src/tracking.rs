//! Just enough tracking: who has a packet of a slot that changes hands.
//!
//! In the steady state the slot alone decides, and nothing is read or written per flow. While a
//! change is in progress the slot is marked, and packets that hash to it look further:
//!
//! - A flow that begins belongs to the slot's owner of now, and is noted.
//! - Any other packet belongs to whom the notes name; without a note its flow is older than the
//!   change, and belongs to the owner of before.
//! - A real server that is gone has no flows: they go to the owner of now, or are reset.
//!
//! (Compare "just enough tracking", CoNEXT 2021, and Beamer, NSDI 2018.) What a stranger sends
//! cannot push a note of a connection out: a SYN is noted in a table of its own, from which only
//! the packet that follows it moves it on; and the table of connections forgets nothing by itself.

use crate::{
    abi::{CHANGED, EMPTY, INDEX, Note, Previous, STEADY, Seconds, Service, Slot},
    flow::{FlowKey, Phase},
};

/// How long a SYN counts as a repetition of one before: that of Linux is given up after 127 s, most
/// others' earlier.
const OPENING_LIMIT: Seconds = 128;
/// How far above its SYN's the sequence number of what first follows can be: an acknowledgment is
/// at one, and a client that has lost it has sent a window at most.
const FIRST_WINDOW: u32 = 1 << 20;

/// What is remembered of flows and owners: BPF maps in the kernel, plain memory on the host.
pub trait Memory {
    fn previous(&self, table: u32, slot: u32) -> Option<Previous>;
    /// Writes [`Previous::noted`].
    fn mark_noted(&self, table: u32, slot: u32);
    /// Writes [`Previous::seen`].
    fn stamp_previous(&self, table: u32, slot: u32, seen: Seconds);
    /// The note of a connection.
    fn note(&self, key: &FlowKey) -> Option<Note>;
    /// False if there is no room.
    fn set_note(&self, key: &FlowKey, note: &Note) -> bool;
    /// Writes `seen` and `state` of a note that is there.
    fn touch_note(&self, key: &FlowKey, note: &Note);
    fn forget_note(&self, key: &FlowKey);
    /// The note of a flow of which the client's SYN alone has been seen.
    fn opening(&self, key: &FlowKey) -> Option<Note>;
    /// May push out another's.
    fn set_opening(&self, key: &FlowKey, note: &Note) -> bool;
    fn forget_opening(&self, key: &FlowKey);
    fn is_full(&self) -> bool;
    /// Tells the daemon, and [`Self::is_full`], that a note found no room.
    fn report_full(&self);
    fn seconds(&self) -> Seconds;
}

/// Why a real server has a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Why {
    /// It owns the slot, and no change is in progress there.
    Steady,
    /// The flow begins, and it owns the slot now.
    Opening,
    /// A note names it.
    Noted,
    /// The flow is older than the change, and it owned the slot then.
    Previous,
    /// The flow's own is gone, and it owns the slot now.
    Rehashed,
    /// It had the flow and is gone, and the service wants a reset.
    Reset,
    /// The flow begins, but there is no room for a note; it owned the slot before.
    Overflow,
}

impl Why {
    pub const ALL: [Self; 7] = [
        Self::Steady,
        Self::Opening,
        Self::Noted,
        Self::Previous,
        Self::Rehashed,
        Self::Reset,
        Self::Overflow,
    ];
}

/// Whose a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// An index, or [`EMPTY`].
    pub real_server: u16,
    pub why: Why,
}

/// A packet, and the slot that it hashes to.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub key: &'a FlowKey,
    pub phase: Phase,
    /// The TCP sequence number.
    pub sequence: u32,
    pub service: &'a Service,
    pub slot: u32,
    /// What the table says, with [`CHANGED`].
    pub owner: Slot,
}

impl Arrival<'_> {
    /// Whose the packet is, remembering what later packets need.
    #[inline(always)]
    pub fn choose<M: Memory>(&self, memory: &M) -> Choice {
        if self.owner & CHANGED == 0 || self.service.previous == STEADY {
            return Choice { real_server: self.current(), why: Why::Steady };
        }
        self.choose_in_change(memory)
    }

    /// Apart, so that it does not cost the steady state its registers.
    #[inline(never)]
    fn choose_in_change<M: Memory>(&self, memory: &M) -> Choice {
        let previous = memory.previous(self.service.previous, self.slot).unwrap_or(Previous::NONE);
        match self.phase {
            Phase::Opening => self.opening(&previous, memory),
            Phase::Middle | Phase::Closing | Phase::Reset => self.later(&previous, memory),
        }
    }

    #[inline(always)]
    fn opening<M: Memory>(&self, previous: &Previous, memory: &M) -> Choice {
        let now = memory.seconds();
        let noted = if previous.noted == 0 { None } else { memory.note(self.key) };
        let usable = |note: &Note| self.owns(note) && note.state == 0;
        // The SYN of a connection that lives, for a real server to answer as it should (RFC 5961
        // §4), or one more of a connection that begins.
        if let Some(note) = noted.filter(usable).or_else(|| {
            if previous.noted == 0 {
                return None;
            }
            let before = memory.opening(self.key).filter(usable)?;
            let repeated =
                before.sequence == self.sequence && now.wrapping_sub(before.seen) < OPENING_LIMIT;
            repeated.then_some(before)
        }) {
            return Choice { real_server: note.real_server, why: Why::Noted };
        }
        if noted.is_some() {
            memory.forget_note(self.key);
        }
        let current = Choice { real_server: self.current(), why: Why::Opening };
        let kept = Choice { real_server: previous.index(), why: Why::Overflow };
        if self.current() == EMPTY {
            // It begins when it is repeated, once somebody takes flows.
            return current;
        }
        let previous_lives = !previous.is_down() && previous.index() != EMPTY;
        let is_current = previous.index() == self.current();
        if previous_lives && (is_current || memory.is_full()) {
            // Without a note, the packets that follow have the owner of before.
            if previous.noted != 0 {
                memory.forget_opening(self.key);
            }
            return if is_current { current } else { kept };
        }
        if previous.noted == 0 {
            memory.mark_noted(self.service.previous, self.slot);
        }
        if memory.set_opening(self.key, &self.note(now)) || !previous_lives {
            current
        } else {
            kept
        }
    }

    #[inline(always)]
    fn later<M: Memory>(&self, previous: &Previous, memory: &M) -> Choice {
        let now = memory.seconds();
        let closing = match self.phase {
            Phase::Closing | Phase::Reset => Note::CLOSING,
            Phase::Opening | Phase::Middle => 0,
        };
        if previous.noted == 0 {
            return self.without_note(previous, now, memory);
        }
        if let Some(note) = memory.note(self.key).filter(|note| self.owns(note)) {
            let touched = Note { seen: now, state: note.state | closing, ..note };
            if touched != note {
                memory.touch_note(self.key, &touched);
            }
            return self.noted(&note);
        }
        // A SYN that somebody else has sent with the addresses and ports of an older flow is none
        // of that flow's, which goes on as before (RFC 5961 §4).
        let follows = |note: &Note| {
            // A client whose SYN met the remains of an older connection answers what it was answered
            // with a RST of that one's sequence (RFC 9293 §3.10.7.3), and then tries again.
            self.phase == Phase::Reset
                || self.sequence.wrapping_sub(note.sequence).wrapping_sub(1) < FIRST_WINDOW
        };
        if let Some(note) = memory.opening(self.key).filter(|note| self.owns(note) && follows(note))
        {
            // Not for a RST: nothing follows it.
            if self.phase == Phase::Middle {
                if memory.set_note(self.key, &Note { seen: now, ..note }) {
                    memory.forget_opening(self.key);
                } else {
                    memory.report_full();
                    memory.set_opening(self.key, &Note { seen: now, ..note });
                }
            }
            return self.noted(&note);
        }
        self.without_note(previous, now, memory)
    }

    #[inline(always)]
    fn without_note<M: Memory>(&self, previous: &Previous, now: Seconds, memory: &M) -> Choice {
        if previous.index() == EMPTY {
            return Choice { real_server: self.current(), why: Why::Steady };
        }
        if previous.seen != now {
            memory.stamp_previous(self.service.previous, self.slot, now);
        }
        if previous.is_down() {
            self.gone(previous.index())
        } else {
            Choice { real_server: previous.index(), why: Why::Previous }
        }
    }

    #[inline(always)]
    fn noted(&self, note: &Note) -> Choice {
        if note.state & Note::DOWN == 0 {
            Choice { real_server: note.real_server, why: Why::Noted }
        } else {
            self.gone(note.real_server)
        }
    }

    #[inline(always)]
    fn gone(&self, real_server: u16) -> Choice {
        if self.service.flags & Service::RESETS != 0 {
            Choice { real_server, why: Why::Reset }
        } else {
            Choice { real_server: self.current(), why: Why::Rehashed }
        }
    }

    #[inline(always)]
    fn current(&self) -> u16 {
        self.owner & INDEX
    }

    /// Not the note of a service that is no more.
    #[inline(always)]
    fn owns(&self, note: &Note) -> bool {
        note.service == self.service.id
    }

    #[inline(always)]
    fn note(&self, now: Seconds) -> Note {
        Note {
            real_server: self.current(),
            state: 0,
            seen: now,
            service: self.service.id,
            slot: self.slot,
            sequence: self.sequence,
            zero: 0,
        }
    }
}

#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;
