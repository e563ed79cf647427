//! Virtual routers as configured, and what is wrong with a set of them.

use std::{collections::HashSet, net::Ipv4Addr, num::NonZeroU8, time::Duration};

use crate::packet::Interval;

/// One virtual router, as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouterConfig {
    /// Unique; tells a changed router from a new one in [`Vrrp::reconfigure`](super::Vrrp::reconfigure).
    pub name: String,
    /// The interface that the VIPs live on and advertisements go through.
    pub interface: String,
    /// Unique on its interface.
    pub vrid: NonZeroU8,
    /// 255 for the owner of the VIPs.
    pub priority: NonZeroU8,
    /// Advertisement interval: whole centiseconds, 10 ms to 40.95 s.
    pub interval: Duration,
    /// Whether to take over from an active router of lower priority.
    pub preempt: bool,
    /// How long to know an active router of lower priority before it is preempted.
    pub preempt_delay: Duration,
    /// Follow the state and are advertised; 1 to 255 of them.
    pub vips: Vec<Vip>,
    /// Follow the state without being advertised.
    pub more_vips: Vec<Vip>,
}

/// An address that follows the state of a virtual router.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Vip {
    /// The VIP.
    pub address: Ipv4Addr,
    /// Length of the prefix that it is added with, 0 to 32.
    pub prefix_len: u8,
}

/// Why a set of virtual routers cannot be run.
#[derive(thiserror::Error, Debug)]
pub enum StartError {
    /// One of them cannot.
    #[error("virtual router {router} on {interface}: {cause}")]
    Router {
        /// Name of the virtual router.
        router: String,
        /// Its interface.
        interface: String,
        /// What was found, what was expected.
        cause: String,
    },
    /// None of them can, as there is no thread for them.
    #[error("vrrp thread: {0}")]
    Thread(String),
}

impl RouterConfig {
    /// The addresses that follow the state, advertised or not.
    pub(super) fn all_vips(&self) -> impl Iterator<Item = Vip> {
        self.vips.iter().chain(&self.more_vips).copied()
    }

    pub(super) fn error(&self, cause: impl Into<String>) -> StartError {
        StartError::Router {
            router: self.name.clone(),
            interface: self.interface.clone(),
            cause: cause.into(),
        }
    }
}

/// The first fault that can be seen without looking at the system.
pub(super) fn check(routers: &[RouterConfig]) -> Result<(), StartError> {
    let (mut names, mut vrids, mut vips) = (HashSet::new(), HashSet::new(), HashSet::new());
    for router in routers {
        let RouterConfig { name, interface, vrid, interval, .. } = router;
        if !names.insert(name) {
            return Err(router.error("another virtual router has the same name"));
        }
        if !vrids.insert((interface, vrid)) {
            return Err(router.error(format!("another virtual router has VRID {vrid} there")));
        }
        if Interval::from_duration(*interval).is_none() {
            return Err(router.error(format!(
                "advertisement interval {interval:?}, expected 10 ms to 40.95 s in steps of 10 ms"
            )));
        }
        if !(1..=255).contains(&router.vips.len()) {
            return Err(router.error(format!("{} VIPs, expected 1 to 255", router.vips.len())));
        }
        for Vip { address, prefix_len } in router.all_vips() {
            if prefix_len > 32 {
                return Err(router.error(format!("{address}/{prefix_len}, expected /0 to /32")));
            }
            if !vips.insert((interface, address)) {
                return Err(router.error(format!("VIP {address} is there twice")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_without_fault_passes() {
        let second = RouterConfig { name: "b".into(), vips: vec![vip(101)], ..router() };
        let other_vrid = RouterConfig { vrid: NonZeroU8::MIN, ..second.clone() };
        let other_interface = RouterConfig { interface: "eth1".into(), ..second };
        assert_eq!(check(&[router(), other_vrid]).map_err(text), Ok(()));
        assert_eq!(check(&[router(), other_interface]).map_err(text), Ok(()));
    }

    #[test]
    fn faults_name_the_router_and_the_interface() {
        let faulty = |change: fn(&mut RouterConfig), want: &str| {
            let mut second = RouterConfig {
                name: "b".into(),
                vrid: NonZeroU8::MIN,
                vips: vec![vip(101)],
                ..router()
            };
            change(&mut second);
            let error = check(&[router(), second.clone()]).map_err(text).unwrap_err();
            assert_eq!(error, format!("virtual router {} on eth0: {want}", second.name));
        };
        faulty(|router| router.name = "a".into(), "another virtual router has the same name");
        faulty(
            |router| router.vrid = NonZeroU8::new(51).unwrap(),
            "another virtual router has VRID 51 there",
        );
        faulty(
            |router| router.interval = Duration::from_millis(15),
            "advertisement interval 15ms, expected 10 ms to 40.95 s in steps of 10 ms",
        );
        faulty(|router| router.vips.clear(), "0 VIPs, expected 1 to 255");
        faulty(|router| router.vips[0].prefix_len = 33, "10.77.0.101/33, expected /0 to /32");
        faulty(|router| router.more_vips.push(vip(100)), "VIP 10.77.0.100 is there twice");
    }

    fn router() -> RouterConfig {
        RouterConfig {
            name: "a".into(),
            interface: "eth0".into(),
            vrid: NonZeroU8::new(51).unwrap(),
            priority: NonZeroU8::new(150).unwrap(),
            interval: Duration::from_millis(100),
            preempt: true,
            preempt_delay: Duration::ZERO,
            vips: vec![vip(100)],
            more_vips: vec![],
        }
    }

    fn vip(last: u8) -> Vip {
        Vip { address: Ipv4Addr::new(10, 77, 0, last), prefix_len: 24 }
    }

    fn text(error: StartError) -> String {
        error.to_string()
    }
}
