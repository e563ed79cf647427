//! When a connection speaks and when it is silent, determined by its number.

use std::time::Duration;

use super::Plan;
use crate::payload::mix;

/// A connection that says nothing in either direction from time to time.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    /// It speaks for so long in between.
    pub speaks: Duration,
    /// Each silence has a length of its own, evenly spread up to this.
    pub at_most: Duration,
}

/// The times between the blocks of an upload.
pub(super) struct Pauses {
    plan: Plan,
    spoken: Duration,
    silences: u64,
}

impl Pauses {
    pub(super) fn new(plan: Plan) -> Self {
        // Some begin with a word and others with a speech, or all would be silent at once.
        let spoken = plan.silence.map_or(Duration::ZERO, |silence| {
            silence.speaks.mul_f64(fraction(mix(plan.connection)))
        });
        Self { plan, spoken, silences: 0 }
    }

    pub(super) fn next(&mut self) -> Duration {
        self.spoken += self.plan.pace;
        match self.plan.silence {
            Some(silence) if self.spoken > silence.speaks => {
                self.spoken = Duration::ZERO;
                self.silences += 1;
                let draw = mix(self.plan.connection ^ mix(self.silences));
                silence.at_most.mul_f64(fraction(draw)).max(self.plan.pace)
            }
            Some(_) | None => self.plan.pace,
        }
    }
}

/// From 0 to 1.
fn fraction(draw: u64) -> f64 {
    draw as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_speaks_between_silences_of_different_lengths() {
        let [pace, speaks, at_most] = [100, 1_000, 20_000].map(Duration::from_millis);
        let pauses = |connection| {
            let silence = Some(Silence { speaks, at_most });
            let plan = Plan { connection, upload_block: 1, download_block: 1, pace, silence };
            let mut pauses = Pauses::new(plan);
            std::iter::repeat_with(move || pauses.next()).take(1_000).collect::<Vec<_>>()
        };
        let silences: Vec<_> = pauses(1).into_iter().filter(|pause| *pause > pace).collect();
        assert!((80..=100).contains(&silences.len()), "one in eleven: {}", silences.len());
        let mean = silences.iter().sum::<Duration>() / u32::try_from(silences.len()).unwrap();
        assert!(mean.abs_diff(at_most / 2) < at_most / 8, "{mean:?}");
        assert!(silences.iter().all(|silence| *silence <= at_most));
        assert_ne!(pauses(1), pauses(2));
    }
}
