//! The places in front of the services map.
//!
//! A place goes to the first service whose key leads there, and is its own until it is deleted;
//! who finds it taken is looked up in the services map, somewhat slower.

use std::{collections::BTreeMap, io, os::fd::OwnedFd};

use lb_ebpf::abi::{Place, Service, ServiceKey};

use super::memory::Mapped;

pub(super) struct Front {
    places: Mapped<Place>,
}

impl Front {
    pub(super) fn open(fd: OwnedFd, len: usize) -> io::Result<Self> {
        Ok(Self { places: Mapped::map(fd, len)? })
    }

    /// The id before the service, and the key last, as a packet reads them the other way round.
    pub(super) fn set(&mut self, key: &ServiceKey, service: &Service) {
        let at = key.place() as usize;
        let Some(before) = self.places.get(at) else { return };
        let packed = service.pack();
        if before.key == *key {
            self.places.write_part(at, |place| &raw mut place.service, packed);
        } else if before.key == Place::FREE.key {
            self.places.write_part(at, |place| &raw mut place.id, service.id);
            self.places.write_part(at, |place| &raw mut place.service, packed);
            self.places.write_part(at, |place| &raw mut place.key, *key);
        }
    }

    pub(super) fn delete(&mut self, key: &ServiceKey) {
        let at = key.place() as usize;
        if self.places.get(at).is_some_and(|place| place.key == *key) {
            self.places.write_part(at, |place| &raw mut place.key, Place::FREE.key);
        }
    }

    /// After adoption: a daemon that was killed may have written one map and not the other.
    pub(super) fn restore(&mut self, services: &BTreeMap<ServiceKey, Service>) {
        for at in 0..self.places.len() {
            let Some(place) = self.places.get(at).filter(|place| *place != Place::FREE) else {
                continue;
            };
            if services.get(&place.key).is_none_or(|service| service.id != place.id) {
                self.places.write_part(at, |place| &raw mut place.key, Place::FREE.key);
            }
        }
        for (key, service) in services {
            self.set(key, service);
        }
    }
}
