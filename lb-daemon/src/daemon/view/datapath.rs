//! The datapath, looked at once for one answer.

use std::{collections::BTreeMap, net::Ipv4Addr};

use lb_ebpf::{
    abi::{self, EMPTY, INDEX, Note, Previous, Seconds},
    tracking::Why,
    verdict::Verdict,
};

use super::super::running::{Datapath, Running};
use crate::{
    control::{Change, Choice, Counters, Exceptions, Memory, PreviousOwner, Refusal, RefusalKind},
    dataplane::monotonic_seconds,
    error_chain,
    reconcile::{InstalledTable, key},
    service::VirtualService,
};

pub(super) struct Seen<'a> {
    datapath: &'a Datapath,
    now: Seconds,
    /// By [`abi::Service::id`] and index of the real server.
    noted: BTreeMap<(u32, u16), u64>,
    opening: u64,
    /// Of tables in which a change is in progress.
    changes: BTreeMap<u32, Changed>,
}

/// What a table remembers.
#[derive(Default)]
struct Changed {
    slots: u32,
    /// By the index of the owner of before.
    of_real_servers: BTreeMap<u16, u32>,
    since: Seconds,
    /// When the last slot changed hands.
    last: Seconds,
}

/// What is kept for the older flows of one real server.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) slots: u32,
    pub(super) exceptions: u64,
}

impl<'a> Seen<'a> {
    pub(super) fn of(datapath: &'a Datapath) -> Self {
        let tables = datapath.installed.tables.iter();
        let changing = tables.filter(|(_, table)| !table.generation.is_steady());
        let mut seen = Self {
            datapath,
            now: monotonic_seconds(),
            noted: BTreeMap::new(),
            opening: 0,
            changes: changing.map(|(&index, table)| (index, Changed::of(table))).collect(),
        };
        if datapath.remembers {
            let (connections, openings) = datapath.kernel.notes();
            for Note { service, real_server, .. } in connections {
                *seen.noted.entry((service, real_server)).or_default() += 1;
            }
            seen.opening = openings as u64;
        }
        seen
    }

    pub(super) fn service(&self, service: &VirtualService) -> Option<&'a abi::Service> {
        self.datapath.installed.services.get(&key(&service.address, service.protocol))
    }

    pub(super) fn table(&self, service: &abi::Service) -> Option<&'a InstalledTable> {
        self.datapath.installed.tables.get(&service.table)
    }

    /// Services by their table.
    pub(super) fn services_of_tables(&self) -> BTreeMap<u32, usize> {
        let mut services = BTreeMap::new();
        for service in self.datapath.installed.services.values() {
            *services.entry(service.table).or_default() += 1;
        }
        services
    }

    pub(super) fn indexes(&self) -> BTreeMap<Ipv4Addr, u16> {
        let servers = self.datapath.installed.real_servers.iter();
        servers.map(|(&index, server)| (Ipv4Addr::from(server.address), index)).collect()
    }

    /// `None`: nothing is remembered.
    pub(super) fn change(&self, config: &VirtualService, service: &abi::Service) -> Option<Change> {
        let changed = self.changes.get(&service.previous)?;
        let drain = config.tracking?.drain_timeout.as_secs();
        let age = |at: Seconds| u64::from(self.now.saturating_sub(at));
        let noted = self.noted.range((service.id, 0)..=(service.id, u16::MAX));
        Some(Change {
            slots: changed.slots,
            exceptions: noted.map(|(_, notes)| notes).sum(),
            since_ms: age(changed.since) * 1000,
            ends_in_ms: drain.saturating_sub(age(changed.last)) * 1000,
        })
    }

    pub(super) fn kept(&self, service: &abi::Service, index: u16) -> Kept {
        let changed = self.changes.get(&service.previous);
        let slots = changed.and_then(|changed| changed.of_real_servers.get(&index));
        Kept {
            slots: slots.copied().unwrap_or(0),
            exceptions: self.noted.get(&(service.id, index)).copied().unwrap_or(0),
        }
    }

    pub(super) fn exceptions(&self) -> Exceptions {
        Exceptions {
            noted: self.noted.values().sum(),
            opening: self.opening,
            capacity: self.datapath.installed.capacity.notes as u64,
        }
    }

    pub(super) fn memory(&self) -> Memory {
        let memory = self.datapath.kernel.memory(&self.datapath.installed);
        Memory {
            tables: memory.tables,
            services: memory.services,
            flows: memory.flows,
            counters: memory.counters,
            total: memory.total(),
        }
    }

    /// `new_flows` is for the caller to leave out where there is no TCP.
    pub(super) fn service_counters(&self, service: &abi::Service) -> Counters {
        counters(self.datapath.kernel.service_counters(service.id))
    }

    pub(super) fn real_server_counters(&self, index: u16) -> Counters {
        counters(self.datapath.kernel.real_server_counters(index))
    }
}

impl Changed {
    fn of(table: &InstalledTable) -> Self {
        let mut changed = Self { since: Seconds::MAX, ..Self::default() };
        for (slot, previous) in table.generation.changed() {
            let owner = table.generation.slots().get(slot as usize).map(|owner| owner & INDEX);
            // One that has its slot back owns it: nothing of another's is kept for it.
            if owner != Some(previous.index()) {
                changed.slots += 1;
                *changed.of_real_servers.entry(previous.index()).or_default() += 1;
            }
            changed.since = changed.since.min(previous.since);
            changed.last = changed.last.max(previous.since).max(previous.changed);
        }
        changed
    }
}

fn counters(counters: abi::Counters) -> Counters {
    let abi::Counters { packets, bytes, new_flows } = counters;
    Counters { packets, bytes, new_flows: Some(new_flows) }
}

/// What the loaded program made of a frame.
pub(super) struct Answer {
    pub(super) verdict: Verdict,
    /// By its name in the configuration.
    pub(super) service: Option<String>,
    pub(super) slot: Option<u32>,
    pub(super) current: Option<Ipv4Addr>,
    pub(super) previous: Option<PreviousOwner>,
    pub(super) real_server: Option<Ipv4Addr>,
    pub(super) choice: Option<Choice>,
}

/// Asks the loaded program about a frame, as if it came in by an interface.
pub(super) fn ask(running: &mut Running, frame: &[u8], ifindex: u32) -> Result<Answer, Refusal> {
    let failed = |message: String| Refusal::new(RefusalKind::Failed, message);
    let none = || failed("there is no virtual service, so no program is loaded".to_owned());
    let kernel = &mut running.datapath_mut().ok_or_else(none)?.kernel;
    let answer = kernel.explain(frame, ifindex).map_err(|error| failed(error_chain(&error)))?;
    let datapath = running.datapath().ok_or_else(none)?;
    let unknown = || failed(format!("the program answered what it does not know: {answer:?}"));
    let verdict = Verdict::ALL.get(usize::from(answer.verdict)).copied().ok_or_else(unknown)?;
    let services = datapath.installed.services.iter();
    let key_of_service = services.clone().find(|(_, service)| service.id == answer.service);
    let table = key_of_service.and_then(|(_, it)| datapath.installed.tables.get(&it.table));
    let address = |index: u16| {
        let server = datapath.installed.real_servers.get(&(index & INDEX))?;
        Some(Ipv4Addr::from(server.address))
    };
    let chosen = Why::ALL.get(usize::from(answer.why)).copied();
    let changed = answer.current & abi::CHANGED != 0 && answer.previous & INDEX != EMPTY;
    Ok(Answer {
        verdict,
        service: key_of_service.and_then(|(found, _)| {
            let config = running.config().virtual_services.iter();
            let mut named = config.filter(|it| key(&it.address, it.protocol) == *found);
            Some(named.next()?.name.clone())
        }),
        slot: chosen.and(table).map(|_| answer.slot),
        current: address(answer.current),
        previous: address(answer.previous)
            .filter(|_| changed)
            .map(|address| PreviousOwner { address, down: answer.previous & Previous::DOWN != 0 }),
        real_server: address(answer.real_server).filter(|_| verdict != Verdict::Reset),
        choice: chosen.map(choice),
    })
}

fn choice(why: Why) -> Choice {
    match why {
        Why::Steady => Choice::Steady,
        Why::Opening => Choice::Opening,
        Why::Noted => Choice::Noted,
        Why::Previous => Choice::Previous,
        Why::Rehashed => Choice::Rehashed,
        Why::Reset => Choice::Reset,
        Why::Overflow => Choice::Overflow,
    }
}
