//! The lab: network namespaces with real servers, a client that checks every byte, probes and
//! captures; and the failover drill on it.
//!
//! **Invariant:** nothing here touches the network of the machine: threads and children enter
//! the namespaces that a run makes, and whatever ends the run removes them.

pub mod bench;
pub mod bpf;
pub mod capture;
pub mod connection;
pub mod director;
pub mod draw;
pub mod drill;
pub mod flood;
pub mod interrupt;
pub mod lab;
pub mod leftovers;
pub mod netns;
pub mod payload;
pub mod performance;
pub mod probe;
pub mod promise;
pub mod random_pool;
pub mod real_server;
pub mod report;
pub mod scenario;
pub mod tcp_counters;
pub mod terminal;
pub mod traffic;
pub mod xdp_pass;
