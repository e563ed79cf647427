//! A pool of real servers that changes at random.

use std::net::Ipv4Addr;

use crate::{
    director::Edit,
    draw::Draw,
    lab::{POOL, SPARE},
};

/// The weights of the real servers that are configured; a drained one has 0.
pub struct RandomPool(Vec<(Ipv4Addr, u16)>);

impl RandomPool {
    /// As the directors are configured at first.
    pub fn new() -> Self {
        Self(POOL.map(|address| (address, 1)).to_vec())
    }

    /// The next change; one real server always takes new connections.
    pub fn change(&mut self, draw: &mut Draw, with_deletions: bool) -> Edit {
        loop {
            let real_server = [POOL[0], POOL[1], POOL[2], SPARE][usize::from(draw.below(4))];
            let at = self.0.iter().position(|(address, _)| *address == real_server);
            let drawn = draw.below(6);
            let edit = match (at, drawn) {
                (None, _) => Edit::Add { real_server, weight: 1 + draw.below(3) },
                (Some(_), 0) if with_deletions => Edit::Delete { real_server },
                (Some(_), 0..3) => Edit::SetWeight { real_server, weight: 0 },
                (Some(_), _) => Edit::SetWeight { real_server, weight: 1 + draw.below(5) },
            };
            let mut after = self.0.clone();
            after.retain(|(address, _)| *address != real_server);
            match edit {
                Edit::Add { weight, .. } | Edit::SetWeight { weight, .. } => {
                    after.push((real_server, weight));
                }
                Edit::Delete { .. } => {}
            }
            if after.iter().any(|(_, weight)| *weight > 0) {
                self.0 = after;
                return edit;
            }
        }
    }
}

impl Default for RandomPool {
    fn default() -> Self {
        Self::new()
    }
}
