//! What a load is made of.

use std::time::Duration;

use crate::connection::Silence;

/// The connections of a load, and their pace.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Long-lived connections, all open at once.
    pub connections: usize,
    /// Between two blocks of a long-lived connection, in each direction.
    pub pace: Duration,
    /// Of how many long-lived connections one is silent from time to time, and how.
    pub silent: Option<(usize, Silence)>,
    /// Whether another long-lived connection takes the place of one that breaks.
    pub replace_broken: bool,
    /// Between two new connections, which end as soon as they have carried something.
    pub new_every: Duration,
}

impl Shape {
    pub const fn new(connections: usize) -> Self {
        Self {
            connections,
            pace: Duration::from_millis(100),
            silent: None,
            replace_broken: false,
            new_every: Duration::from_millis(10),
        }
    }
}
