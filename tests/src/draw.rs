//! Random choices that can be repeated: the seed is printed, and `TANDEM_SEED` sets it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::payload::mix;

pub struct Draw {
    seed: u64,
    drawn: u64,
}

impl Draw {
    /// Shows its seed, which a test that fails brings along.
    pub fn new() -> Self {
        let given = std::env::var("TANDEM_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = given.unwrap_or(u64::from(now.subsec_nanos()));
        println!("TANDEM_SEED={seed}");
        Self { seed: mix(seed), drawn: 0 }
    }

    /// From 0 to `end`, without `end`, which is not 0.
    pub fn below(&mut self, end: u16) -> u16 {
        self.drawn += 1;
        u16::try_from(mix(self.seed ^ self.drawn) % u64::from(end)).unwrap_or_default()
    }
}

impl Default for Draw {
    fn default() -> Self {
        Self::new()
    }
}
