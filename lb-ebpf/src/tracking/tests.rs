use super::{memory::PlainMemory, *};
use crate::header::Ipv4;
use Phase::{Closing, Middle, Opening, Reset};

#[test]
fn without_a_change_the_slot_alone_decides_and_nothing_is_remembered() {
    for (owner, previous) in [(CURRENT, TABLE), (CURRENT | CHANGED, STEADY)] {
        let memory = remembering(PREVIOUS);
        let before = memory.clone();
        for phase in [Opening, Middle, Closing, Reset] {
            let service = Service { previous, ..SERVICE };
            let choice = Arrival { phase, service: &service, owner, ..arrival() }.choose(&memory);
            assert_eq!(choice, Choice { real_server: CURRENT, why: Why::Steady });
        }
        assert_eq!(memory, before);
    }
}

#[test]
fn a_flow_that_begins_belongs_to_the_owner_of_now_and_is_noted() {
    let memory = remembering(PREVIOUS);
    assert_eq!(meet(Opening, &memory), (CURRENT, Why::Opening));
    assert_eq!(memory.opening(&KEY), Some(NOTE));
    assert!(memory.notes.borrow().is_empty(), "a SYN alone takes no room of connections");
}

#[test]
fn a_repeated_syn_goes_where_the_first_went_for_as_long_as_a_client_repeats_it() {
    for (age, want) in [(0, OTHER), (127, OTHER), (128, CURRENT), (5000, CURRENT)] {
        let mut memory = remembering(PREVIOUS);
        memory.openings.get_mut().insert(KEY, Note { real_server: OTHER, ..NOTE });
        memory.now = NOW + age;
        let why = if want == OTHER { Why::Noted } else { Why::Opening };
        assert_eq!(meet(Opening, &memory), (want, why), "{age} s later");
    }
}

#[test]
fn the_packet_after_the_syn_makes_it_a_connection_and_a_reset_does_not() {
    for (phase, becomes_connection) in [(Middle, true), (Closing, false), (Reset, false)] {
        let mut memory = remembering(PREVIOUS);
        memory.openings.get_mut().insert(KEY, Note { real_server: OTHER, ..NOTE });
        memory.now = NOW + 9;
        assert_eq!(meet(phase, &memory), (OTHER, Why::Noted));
        let note = Note { real_server: OTHER, seen: NOW + 9, ..NOTE };
        assert_eq!(memory.note(&KEY), becomes_connection.then_some(note), "{phase:?}");
        assert_eq!(memory.opening(&KEY).is_none(), becomes_connection, "{phase:?}");
    }
}

#[test]
fn a_packet_without_a_note_is_older_than_the_change_and_says_that_its_flow_lives() {
    for phase in [Middle, Closing, Reset] {
        let mut memory = remembering(PREVIOUS);
        memory.now = NOW + 7;
        assert_eq!(meet(phase, &memory), (PREVIOUS, Why::Previous));
        assert_eq!(memory.previous(TABLE, SLOT).unwrap().seen, NOW + 7);
        assert!(memory.notes.borrow().is_empty() && memory.openings.borrow().is_empty());
    }
}

#[test]
fn a_slot_that_had_no_owner_has_no_flows_of_before() {
    for down in [0, Previous::DOWN] {
        let memory = remembering(EMPTY | down);
        let before = memory.clone();
        assert_eq!(meet(Middle, &memory), (CURRENT, Why::Steady));
        assert_eq!(memory, before);
        assert_eq!(meet(Opening, &memory), (CURRENT, Why::Opening));
    }
}

#[test]
fn a_slot_without_notes_does_not_look_for_any_until_a_flow_begins() {
    let memory = remembering(PREVIOUS);
    let unnoted = Previous { noted: 0, ..memory.previous(TABLE, SLOT).unwrap() };
    memory.previous.borrow_mut().insert((TABLE, SLOT), unnoted);
    // Of the change before the last: the flow has the owner of the steady state between.
    memory.set_note(&KEY, &Note { real_server: OTHER, ..NOTE });
    assert_eq!(meet(Middle, &memory), (PREVIOUS, Why::Previous));
    assert_eq!(memory.previous(TABLE, SLOT), Some(unnoted));

    memory.forget_note(&KEY);
    assert_eq!(meet(Opening, &memory), (CURRENT, Why::Opening));
    assert_eq!(memory.previous(TABLE, SLOT), Some(Previous { noted: 1, ..unnoted }));
    assert_eq!(meet(Middle, &memory), (CURRENT, Why::Noted));
}

#[test]
fn a_noted_flow_stays_where_it_is_and_its_note_says_when_it_was_seen() {
    for (phase, state) in [(Middle, 0), (Closing, Note::CLOSING), (Reset, Note::CLOSING)] {
        let mut memory = remembering(PREVIOUS);
        memory.notes.get_mut().insert(KEY, Note { real_server: OTHER, ..NOTE });
        memory.now = NOW + 5;
        assert_eq!(meet(phase, &memory), (OTHER, Why::Noted));
        let note = Note { real_server: OTHER, state, seen: NOW + 5, ..NOTE };
        assert_eq!(memory.note(&KEY), Some(note));
        assert_eq!(memory.previous(TABLE, SLOT).unwrap().seen, NOW, "not one of before");
    }
}

#[test]
fn a_closed_flow_stays_closed_while_its_last_packets_pass() {
    let memory = remembering(PREVIOUS);
    memory.set_note(&KEY, &Note { real_server: OTHER, state: Note::CLOSING, ..NOTE });
    assert_eq!(meet(Middle, &memory), (OTHER, Why::Noted));
    assert_eq!(memory.note(&KEY).unwrap().state, Note::CLOSING);
}

#[test]
fn a_syn_on_a_connection_that_lives_goes_to_its_real_server() {
    let memory = remembering(PREVIOUS);
    memory.set_note(&KEY, &Note { real_server: OTHER, ..NOTE });
    assert_eq!(meet(Opening, &memory), (OTHER, Why::Noted));
    assert!(memory.opening(&KEY).is_none());
}

#[test]
fn a_syn_on_a_connection_that_has_ended_begins_another() {
    for state in [Note::CLOSING, Note::DOWN, Note::CLOSING | Note::DOWN] {
        let memory = remembering(PREVIOUS);
        memory.set_note(&KEY, &Note { real_server: OTHER, state, ..NOTE });
        assert_eq!(meet(Opening, &memory), (CURRENT, Why::Opening), "{state}");
        assert_eq!((memory.note(&KEY), memory.opening(&KEY)), (None, Some(NOTE)));
        assert_eq!(meet(Middle, &memory), (CURRENT, Why::Noted), "{state}");
    }
}

#[test]
fn the_flows_of_a_real_server_that_is_gone_are_hashed_again_or_reset() {
    for (flags, why, of_previous, of_note) in
        [(0, Why::Rehashed, CURRENT, CURRENT), (Service::RESETS, Why::Reset, PREVIOUS, OTHER)]
    {
        let service = Service { flags, ..SERVICE };
        for phase in [Middle, Closing, Reset] {
            let arrival = Arrival { phase, service: &service, ..arrival() };
            let memory = remembering(PREVIOUS | Previous::DOWN);
            assert_eq!(arrival.choose(&memory), Choice { real_server: of_previous, why });

            let memory = remembering(PREVIOUS);
            memory.set_note(&KEY, &Note { real_server: OTHER, state: Note::DOWN, ..NOTE });
            assert_eq!(arrival.choose(&memory), Choice { real_server: of_note, why });
            assert_eq!(memory.note(&KEY).unwrap().state & Note::DOWN, Note::DOWN);
        }
    }
}

#[test]
fn new_flows_of_a_slot_whose_former_owner_is_gone_are_told_from_its_own() {
    let memory = remembering(PREVIOUS | Previous::DOWN);
    let service = Service { flags: Service::RESETS, ..SERVICE };
    for (phase, sequence) in [(Opening, SEQUENCE), (Middle, 0), (Middle, 5000)] {
        let choice = Arrival { phase, sequence, service: &service, ..arrival() }.choose(&memory);
        assert_eq!(choice.real_server, CURRENT);
        assert_ne!(choice.why, Why::Reset);
    }
}

#[test]
fn an_owner_that_has_its_slot_back_needs_no_notes() {
    let memory = remembering(CURRENT);
    assert_eq!(meet(Opening, &memory), (CURRENT, Why::Opening));
    assert_eq!(meet(Middle, &memory), (CURRENT, Why::Previous));
    assert!(memory.notes.borrow().is_empty() && memory.openings.borrow().is_empty());

    // One that was given up elsewhere must not take the new connection there.
    let mut memory = remembering(CURRENT);
    memory.openings.get_mut().insert(KEY, Note { real_server: OTHER, ..NOTE });
    memory.now = NOW + OPENING_LIMIT;
    assert_eq!(meet(Opening, &memory), (CURRENT, Why::Opening));
    assert_eq!(meet(Middle, &memory), (CURRENT, Why::Previous));
}

#[test]
fn where_nobody_takes_flows_a_syn_is_not_noted() {
    let memory = remembering(PREVIOUS);
    let arrival = Arrival { phase: Opening, owner: EMPTY | CHANGED, ..arrival() };
    assert_eq!(arrival.choose(&memory).real_server, EMPTY);
    assert!(memory.openings.borrow().is_empty());
    assert_eq!(meet(Opening, &memory), (CURRENT, Why::Opening), "as soon as somebody does");
}

#[test]
fn a_connection_that_finds_no_room_says_so_and_stays_where_its_syn_went() {
    let mut memory = remembering(PREVIOUS);
    assert_eq!(meet(Opening, &memory), (CURRENT, Why::Opening));
    memory.has_no_room = true;
    assert_eq!(meet(Middle, &memory), (CURRENT, Why::Noted));
    assert!(memory.is_full() && memory.note(&KEY).is_none());
    assert_eq!(meet(Middle, &memory), (CURRENT, Why::Noted));
}

#[test]
fn without_room_for_notes_new_flows_stay_with_the_owner_of_before() {
    let memory = remembering(PREVIOUS);
    memory.report_full();
    assert_eq!(meet(Opening, &memory), (PREVIOUS, Why::Overflow));
    assert_eq!(meet(Middle, &memory), (PREVIOUS, Why::Previous));

    let memory = PlainMemory { has_no_room: true, ..remembering(PREVIOUS) };
    assert_eq!(meet(Opening, &memory), (PREVIOUS, Why::Overflow));
}

#[test]
fn an_old_syn_does_not_take_a_flow_away_that_found_no_room() {
    let mut memory = remembering(PREVIOUS);
    memory.openings.get_mut().insert(KEY, Note { real_server: OTHER, ..NOTE });
    memory.now = NOW + OPENING_LIMIT;
    memory.report_full();
    assert_eq!(meet(Opening, &memory), (PREVIOUS, Why::Overflow));
    assert_eq!(meet(Middle, &memory), (PREVIOUS, Why::Previous));
}

#[test]
fn without_room_new_flows_never_go_to_a_real_server_that_is_gone() {
    let memory = PlainMemory { has_no_room: true, ..remembering(PREVIOUS | Previous::DOWN) };
    memory.report_full();
    assert_eq!(meet(Opening, &memory), (CURRENT, Why::Opening));
    assert_eq!(meet(Middle, &memory), (CURRENT, Why::Rehashed));
}

#[test]
fn notes_of_another_service_are_not_ours() {
    let foreign = Note { real_server: OTHER, service: SERVICE.id + 1, ..NOTE };
    let memory = remembering(PREVIOUS);
    memory.set_note(&KEY, &foreign);
    memory.set_opening(&KEY, &foreign);
    assert_eq!(meet(Middle, &memory), (PREVIOUS, Why::Previous));
    assert_eq!(memory.note(&KEY), Some(foreign), "and are left alone");
    assert_eq!(meet(Opening, &memory), (CURRENT, Why::Opening));
    assert_eq!((memory.note(&KEY), memory.opening(&KEY)), (None, Some(NOTE)));
}

#[test]
fn a_second_packet_within_a_second_writes_nothing() {
    let memory = remembering(PREVIOUS);
    meet(Middle, &memory);
    let before = memory.clone();
    meet(Middle, &memory);
    assert_eq!(memory, before);
}

#[test]
fn a_syn_of_an_impostor_takes_no_packet_from_an_older_flow() {
    let memory = remembering(PREVIOUS);
    assert_eq!(meet(Opening, &memory), (CURRENT, Why::Opening));
    let older = |sequence| Arrival { sequence, ..arrival() }.choose(&memory);
    for sequence in [SEQUENCE, SEQUENCE.wrapping_sub(1), FIRST_WINDOW, u32::MAX / 2] {
        assert_eq!(older(sequence), Choice { real_server: PREVIOUS, why: Why::Previous });
        assert!(memory.note(&KEY).is_none(), "{sequence}");
    }
    // A client that begins anew with the same port has another sequence number.
    let anew = Arrival { phase: Opening, sequence: 77, ..arrival() }.choose(&memory);
    assert_eq!(anew, Choice { real_server: CURRENT, why: Why::Opening });
    assert_eq!(older(78), Choice { real_server: CURRENT, why: Why::Noted });
}

#[test]
fn a_reset_that_answers_an_answer_to_a_syn_goes_where_the_syn_went() {
    let memory = remembering(PREVIOUS);
    assert_eq!(meet(Opening, &memory), (CURRENT, Why::Opening));
    let reset = Arrival { phase: Reset, sequence: 77, ..arrival() };
    assert_eq!(reset.choose(&memory), Choice { real_server: CURRENT, why: Why::Noted });
    assert!(memory.note(&KEY).is_none());
}

#[test]
fn reasons_are_listed_in_the_order_of_their_numbers() {
    for (number, why) in Why::ALL.into_iter().enumerate() {
        assert_eq!(why as usize, number);
    }
}

const CURRENT: u16 = 1;
const PREVIOUS: u16 = 2;
/// Had the slot in between.
const OTHER: u16 = 3;
const TABLE: u32 = 4;
const SLOT: u32 = 5;
const NOW: Seconds = 1000;
/// Of the SYN; it wraps within the flow.
const SEQUENCE: u32 = u32::MAX;
const KEY: FlowKey = FlowKey::new([192, 0, 2, 1], [10, 77, 0, 100], [15, 160], [0, 80], Ipv4::TCP);
const SERVICE: Service = Service {
    table: TABLE,
    table_size: 1021,
    previous: TABLE,
    role: 0,
    id: 6,
    source_mask: [0; 4],
    flags: 0,
};
/// Of a flow that has just begun.
const NOTE: Note = Note {
    real_server: CURRENT,
    state: 0,
    seen: NOW,
    service: SERVICE.id,
    slot: SLOT,
    sequence: SEQUENCE,
    zero: 0,
};

fn meet(phase: Phase, memory: &PlainMemory) -> (u16, Why) {
    let sequence = if phase == Opening { SEQUENCE } else { SEQUENCE.wrapping_add(1) };
    let Choice { real_server, why } = Arrival { phase, sequence, ..arrival() }.choose(memory);
    (real_server, why)
}

fn arrival() -> Arrival<'static> {
    Arrival {
        key: &KEY,
        phase: Middle,
        sequence: SEQUENCE.wrapping_add(1),
        service: &SERVICE,
        slot: SLOT,
        owner: CURRENT | CHANGED,
    }
}

/// The slot changed hands just now.
fn remembering(real_server: u16) -> PlainMemory {
    let previous = Previous { real_server, noted: 1, seen: NOW, since: NOW, changed: NOW };
    let memory = PlainMemory { now: NOW, ..PlainMemory::default() };
    memory.previous.borrow_mut().insert((TABLE, SLOT), previous);
    memory
}
