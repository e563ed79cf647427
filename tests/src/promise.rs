//! What just enough tracking promises a connection, held against what became of it.
//!
//! A change of the pool breaks nothing, with one exception: who deletes a real server says that it
//! is gone, and its connections are reset as soon as they speak.

use std::time::{Duration, SystemTime};

use crate::{connection::Failure, traffic::Life};

/// A real server was deleted: not before `begun`, and not after `done`.
#[derive(Clone, Debug)]
pub struct Deletion {
    pub real_server: String,
    pub begun: SystemTime,
    pub done: SystemTime,
}

/// Connections that were broken though they were to live, or not as they were to be broken; for a
/// person, in seconds since `begin`. Those of a deleted real server hear of it `within` so long.
pub fn violations(
    lives: &[Life],
    deletions: &[Deletion],
    within: Duration,
    begin: SystemTime,
) -> Vec<String> {
    let second = |at: SystemTime| at.duration_since(begin).unwrap_or_default().as_secs_f64();
    let found = lives.iter().filter_map(|life| Some((life, violation(life, deletions, within)?)));
    found
        .map(|(life, what)| {
            let (opened, ended) = (second(life.opened), second(life.ended));
            format!("opened at {opened:.3} s, ended at {ended:.3} s: {what}")
        })
        .collect()
}

fn violation(life: &Life, deletions: &[Deletion], within: Duration) -> Option<String> {
    let failure = life.failure.as_ref()?;
    let of = life.real_server.as_deref();
    let may_break = |deletion: &&Deletion| {
        // One that had not heard from anybody yet may have been on its way to any.
        let had_it = of.is_none_or(|of| of == deletion.real_server);
        had_it && life.opened <= deletion.done && deletion.begun <= life.ended
    };
    let of = of.unwrap_or("a real server that said nothing");
    let Some(deletion) = deletions.iter().rfind(may_break) else {
        return Some(format!("connection to {of}, which was not deleted then: {failure}"));
    };
    let late = life.ended.duration_since(deletion.done).unwrap_or_default();
    match failure {
        Failure::Reset(_) if late <= within => None,
        Failure::Reset(_) => {
            Some(format!("connection to {of}: reset {late:.1?} after that was deleted"))
        }
        Failure::TimedOut(_) | Failure::Corrupted(_) => {
            Some(format!("connection to {of}, which was deleted: {failure}, expected a reset"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_of_a_deleted_real_server_may_break_and_by_a_reset_in_time() {
        let reset = || Failure::Reset("x".to_owned());
        let timed_out = Failure::TimedOut("x".to_owned());
        for (what, of, (opened, ended), failure, is_violation) in [
            ("lived on", Some("rs1"), (1, 90), None, false),
            ("its own", Some("rs2"), (1, 51), Some(reset()), false),
            ("another's", Some("rs1"), (1, 51), Some(reset()), true),
            ("too late", Some("rs2"), (1, 70), Some(reset()), true),
            ("before", Some("rs2"), (1, 40), Some(reset()), true),
            ("opened since", Some("rs2"), (56, 57), Some(reset()), true),
            ("black hole", Some("rs2"), (1, 51), Some(timed_out), true),
            ("opening", None, (49, 51), Some(reset()), false),
            ("opening long before", None, (1, 2), Some(reset()), true),
        ] {
            let [opened, ended] = [opened, ended].map(at);
            let real_server = of.map(str::to_owned);
            let life = Life { opened, ended, real_server, failure };
            let deletion = Deletion { real_server: "rs2".to_owned(), begun: at(50), done: at(55) };
            let found = violations(&[life], &[deletion], Duration::from_secs(10), at(0));
            assert_eq!(!found.is_empty(), is_violation, "{what}: {found:?}");
        }
    }

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }
}
