//! The order of events, in milliseconds from the first.

use std::time::{Duration, SystemTime};

use crate::{
    lab::Lab,
    probe::{Sighting, Takeover},
    report::Moment,
};

pub(super) struct Timeline {
    event: SystemTime,
    moments: Vec<Moment>,
}

impl Timeline {
    /// `event` is at 0.
    pub(super) fn new(event: SystemTime) -> Self {
        Self { event, moments: Vec::new() }
    }

    pub(super) fn add(&mut self, at: SystemTime, who: &str, what: &str) {
        let at_ms = ms_between(self.event, at);
        self.moments.push(Moment { at_ms, who: who.to_owned(), what: what.to_owned() });
    }

    /// `sightings` end before the next takeover.
    pub(super) fn add_takeover(
        &mut self,
        lab: &Lab,
        (old, new): (&str, &str),
        takeover: &Takeover,
        sightings: &[Sighting],
    ) {
        if let Some(last) = takeover.last_of_old {
            self.add(last, "client", &format!("last answer from {old}"));
        }
        if let Some(garp) = takeover.first_garp {
            self.add(garp, new, "GARP seen by the client");
        }
        self.add(takeover.first_answer, "client", &format!("first answer from {new}"));
        // Anything else that answers for the VIP afterwards is worth a line.
        let after = sightings.iter().filter(|one| one.at > takeover.first_answer);
        let strays: Vec<_> = after.filter(|one| lab.name_of(one.from) != Some(new)).collect();
        if let Some(last) = strays.last() {
            let who = lab.name_of(last.from).unwrap_or("stranger");
            let what = format!("last of {} answers after the takeover", strays.len());
            self.add(last.at, who, &what);
        }
    }

    pub(super) fn in_order(mut self) -> Vec<Moment> {
        self.moments.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
        self.moments
    }
}

pub(super) fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Negative when `to` is before `from`.
pub(super) fn ms_between(from: SystemTime, to: SystemTime) -> f64 {
    match to.duration_since(from) {
        Ok(after) => ms(after),
        Err(before) => -ms(before.duration()),
    }
}
