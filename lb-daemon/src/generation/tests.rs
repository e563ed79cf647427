use super::*;

#[test]
fn slots_that_change_hands_remember_their_owner_and_others_are_untouched() {
    let generation = Generation::steady(vec![A, A, B]).change(vec![A, B, B], &members(), T0);
    assert_eq!(generation.slots(), [A, B | CHANGED, B]);
    let previous = Previous { real_server: A, noted: 0, seen: T0, since: T0, changed: T0 };
    assert_eq!(generation.previous(), [Previous::NONE, previous, Previous::NONE]);
    assert_eq!(generation.changed().collect::<Vec<_>>(), [(1, previous)]);
    assert!(generation.owners().eq([A, B, B]));
}

#[test]
fn a_change_that_moves_nothing_is_none() {
    let steady = Generation::steady(vec![A, B]);
    assert_eq!(steady.change(vec![A, B], &members(), T0), steady);
}

#[test]
fn a_slot_that_was_empty_has_nobody_to_remember() {
    let generation = Generation::steady(vec![EMPTY, A]).change(vec![B, EMPTY], &members(), T0);
    assert_eq!(generation.slots(), [B, EMPTY | CHANGED]);
    assert_eq!(generation.previous()[1].real_server, A);
}

#[test]
fn over_several_changes_the_owner_of_the_last_steady_state_is_remembered() {
    let first = change(&Generation::steady(vec![A]), B, T0);
    let second = change(&first, C, T0 + 10);
    assert_eq!(second.slots(), [C | CHANGED]);
    let expected = Previous { real_server: A, noted: 1, seen: T0, since: T0, changed: T0 + 10 };
    assert_eq!(second.previous(), [expected]);

    let again = change(&second, C, T0 + 20);
    assert_eq!(again, second, "a change elsewhere is none here");
}

#[test]
fn an_owner_that_has_its_slot_back_is_looked_for_from_when_it_goes_again() {
    let away = change(&Generation::steady(vec![A]), B, T0);
    let back = change(&away, A, T0 + 10);
    assert_eq!(back.slots(), [A | CHANGED], "flows of between may be noted");
    assert_eq!((back.previous()[0].since, back.previous()[0].changed), (T0, T0 + 10));

    let away_again = change(&back, C, T0 + 5000);
    let previous = away_again.previous()[0];
    assert_eq!(previous.real_server, A);
    assert_eq!((previous.since, previous.seen), (T0 + 5000, T0 + 5000));
}

#[test]
fn a_former_owner_that_leaves_the_pool_is_down_until_it_returns() {
    let all = members();
    let without_a = Members::from([B, C]);
    let gone = Generation::steady(vec![A]).change(vec![B], &without_a, T0);
    assert!(gone.previous()[0].is_down() && gone.previous()[0].index() == A);
    assert!(gone.knows(&without_a) && !gone.knows(&all));

    let back = gone.change(vec![B], &all, T0 + 5);
    assert_eq!(back.previous()[0].real_server, A);
    assert!(back.knows(&all));

    let drained = Generation::steady(vec![A]).change(vec![B], &all, T0);
    assert!(!drained.previous()[0].is_down(), "weight 0 is a member");
}

#[test]
fn what_is_remembered_of_a_real_server_that_goes_later_is_kept_from_then_on() {
    let drained = change(&Generation::steady(vec![A]), B, T0);
    let gone = drained.change(vec![B], &Members::from([B]), T0 + 400);
    assert_eq!((gone.previous()[0].since, gone.previous()[0].changed), (T0, T0 + 400));
    assert_eq!(aged(&gone, &[], T0 + 400 + DOWN_RETENTION - 1), []);
    assert_eq!(aged(&gone, &[], T0 + 400 + DOWN_RETENTION), [(B, EMPTY)]);
}

#[test]
fn a_former_owner_is_forgotten_once_its_flows_are_idle_or_have_had_their_time() {
    for (seen, now, forgotten) in [
        (T0, T0 + IDLE - 1, false),
        (T0, T0 + IDLE, true),
        (T0 + DRAIN - 5, T0 + DRAIN - 1, false),
        (T0 + DRAIN - 5, T0 + DRAIN, true),
    ] {
        let mut generation = change(&Generation::steady(vec![A]), B, T0);
        generation.refresh(vec![Previous { seen, ..generation.previous()[0] }]);
        let expected: &[_] = if forgotten { &[(B, EMPTY)] } else { &[] };
        assert_eq!(aged(&generation, &[], now), expected, "seen {seen}, now {now}");
    }
}

#[test]
fn a_noted_flow_of_another_keeps_the_slot_marked_and_the_owners_own_does_not() {
    let generation = change(&Generation::steady(vec![A]), B, T0);
    assert_eq!(aged(&generation, &[B], T0 + IDLE), [(B, EMPTY)]);
    // Without a note, a flow has the owner of now from then on.
    assert_eq!(aged(&generation, &[A], T0 + IDLE), [(B | CHANGED, B)]);

    let mut later = generation;
    later.update(&later.age(RETENTION, &notes(&[A]), T0 + IDLE));
    assert_eq!(aged(&later, &[A], T0 + 9 * DRAIN), []);
    assert_eq!(aged(&later, &[B], T0 + 9 * DRAIN), [(B, EMPTY)]);
}

#[test]
fn an_owner_that_has_its_slot_back_is_steady_once_no_exception_is_left() {
    let back = change(&change(&Generation::steady(vec![A]), B, T0), A, T0 + 1);
    assert_eq!(aged(&back, &[B], T0 + 9 * DRAIN), []);
    assert_eq!(aged(&back, &[A], T0 + 2), [(A, EMPTY)]);
    assert_eq!(aged(&back, &[], T0 + 2), [(A, EMPTY)]);
}

#[test]
fn a_generation_whose_last_slot_is_steady_is_so_itself() {
    let mut generation = Generation::steady(vec![A, A]).change(vec![B, C], &members(), T0);
    let updates = generation.age(RETENTION, &notes(&[A]), T0 + DRAIN);
    generation.update(&updates);
    assert!(!generation.is_steady());
    generation.update(&generation.age(RETENTION, &BTreeMap::new(), T0 + DRAIN));
    assert_eq!(generation, Generation::steady(vec![B, C]));
}

#[test]
fn adopted_it_is_what_it_was_and_steady_if_no_slot_is_marked() {
    let generation = change(&Generation::steady(vec![A]), B, T0);
    let adopted = |generation: &Generation| {
        Generation::adopted(generation.slots().to_vec(), generation.previous().to_vec())
    };
    assert_eq!(adopted(&generation), generation);
    // Its daemon was killed before it could say so to the service.
    let done = Generation::adopted(vec![B], vec![Previous::NONE]);
    assert!(done.is_steady());
}

#[test]
fn a_note_has_had_its_time_when_its_flow_is_idle_closed_drained_or_down() {
    let check = |state, seen, owns, changed, want: Seconds| {
        let note = Note { real_server: A, state, seen, service: 0, slot: 0, sequence: 0, zero: 0 };
        let gone = |now| RETENTION.has_gone(&note, owns, changed, now);
        let at = (seen..).find(|&now| gone(now)).unwrap();
        assert_eq!(at - seen, want, "state {state}, owns {owns}, changed {changed}");
    };
    check(0, T0, true, T0, IDLE);
    check(0, T0, false, T0, IDLE);
    check(Note::CLOSING, T0, true, T0, CLOSED_RETENTION);
    check(Note::DOWN, T0, false, T0, DOWN_RETENTION);
    check(0, T0 + DRAIN - 7, false, T0, 7);
    check(0, T0 + DRAIN - 7, true, T0, IDLE);

    let opening =
        Note { real_server: A, state: 0, seen: T0, service: 0, slot: 0, sequence: 0, zero: 0 };
    assert!(!has_given_up(&opening, T0 + OPENING_RETENTION - 1));
    assert!(has_given_up(&opening, T0 + OPENING_RETENTION));
    assert!(!has_given_up(&opening, T0 - 1), "noted while the notes were read");
}

const A: u16 = 1;
const B: u16 = 2;
const C: u16 = 3;
const T0: Seconds = 10_000;
const DRAIN: Seconds = 3600;
const IDLE: Seconds = 900;
const RETENTION: Retention = Retention { drain: DRAIN, idle: IDLE };

fn members() -> Members {
    Members::from([A, B, C])
}

fn change(generation: &Generation, owner: u16, now: Seconds) -> Generation {
    generation.change(vec![owner], &members(), now)
}

/// Of slot 0.
fn notes(servers: &[u16]) -> BTreeMap<u32, BTreeSet<u16>> {
    BTreeMap::from([(0, servers.iter().copied().collect())])
}

/// The slots that time changes, and their former owners.
fn aged(generation: &Generation, noted: &[u16], now: Seconds) -> Vec<(Slot, u16)> {
    let updates = generation.age(RETENTION, &notes(noted), now);
    updates.iter().map(|update| (update.slot, update.previous.real_server)).collect()
}
