//! Which repetitions ran at the machine's full speed.
//!
//! A virtual machine changes between speed states some 1.4 to 1.6 times apart, for milliseconds or
//! for minutes, as a neighbour uses the other half of its core. Arithmetic in a loop does not
//! notice; code with calls and branches does. So the control is a program of ours that never
//! changes, run by the kernel just before and after each repetition.

use std::time::Duration;

/// Between the states there is nothing; noise within one is some per cent.
const TOLERANCE: f64 = 1.12;

/// The slowest control that ran at full speed, given all of them; zero if there are none.
pub(super) fn full_speed_limit(controls: impl Iterator<Item = Duration>) -> Duration {
    let mut controls: Vec<_> = controls.collect();
    controls.sort_unstable();
    // Not the very fastest: one lucky reading must not rule out all others.
    let fastest = controls.get(controls.len() / 50).copied().unwrap_or_default();
    fastest.mul_f64(TOLERANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_speed_states_the_slow_one_is_refused() {
        let ms = Duration::from_millis;
        let limit = full_speed_limit([160, 100, 104, 161, 158, 101].map(ms).into_iter());
        assert!(limit >= ms(104) && limit < ms(158), "{limit:?}");
        assert_eq!(full_speed_limit(std::iter::empty()), Duration::ZERO);
    }

    #[test]
    fn one_lucky_reading_does_not_rule_out_the_rest() {
        let readings = std::iter::once(50).chain(std::iter::repeat_n(100, 199));
        assert!(full_speed_limit(readings.map(Duration::from_millis)).as_millis() >= 100);
    }
}
