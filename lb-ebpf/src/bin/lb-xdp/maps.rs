//! The maps of a director, and how the pipeline sees them.
//!
//! Their sizes are the most that there can be: the daemon makes them as large as is configured.

use core::cell::Cell as Seen;

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
    helpers::{bpf_ktime_get_ns, generated::bpf_ktime_get_coarse_ns},
    macros::btf_map,
};
use lb_ebpf::{
    abi::{
        Cell, Counters, DEFAULT_FLOWS, Explanation, ForwardUntil, MAX_PORT_RANGES,
        MAX_REAL_SERVERS, MAX_ROLES, MAX_SERVICES, MAX_TABLES, Note, PLACES, Place, PortPrefix,
        Previous, RealServer, Seconds, Service, ServiceKey, Settings, Slot,
    },
    director::{Maps, Step},
    flow::FlowKey,
    tracking::Memory,
    verdict::Verdict,
};

/// Inner maps of one outer map may differ in size, and the daemon fills them as memory.
const INNER: usize = 1 << 12 | 1 << 10;

#[btf_map]
static SERVICES: HashMap<ServiceKey, Service, MAX_SERVICES> = HashMap::new();
/// The daemon writes it as memory.
#[btf_map]
static FRONT: Array<Place, PLACES, { 1 << 10 }> = Array::new();
#[btf_map]
static PORT_RANGES: LpmTrie<PortPrefix, ServiceKey, MAX_PORT_RANGES> = LpmTrie::new();
#[btf_map]
static TABLES: ArrayOfMaps<Array<Cell, 1, INNER>, MAX_TABLES> = ArrayOfMaps::new();
#[btf_map]
static PREVIOUS: ArrayOfMaps<Array<Previous, 1, INNER>, MAX_TABLES> = ArrayOfMaps::new();
#[btf_map]
static NOTES: HashMap<FlowKey, Note, DEFAULT_FLOWS> = HashMap::new();
#[btf_map]
static OPENINGS: LruHashMap<FlowKey, Note, DEFAULT_FLOWS> = LruHashMap::new();
#[btf_map]
static REAL_SERVERS: Array<RealServer, MAX_REAL_SERVERS> = Array::new();
#[btf_map]
static ROLES: Array<ForwardUntil, MAX_ROLES> = Array::new();
#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
static VERDICTS: PerCpuArray<u64, { Verdict::ALL.len() }> = PerCpuArray::new();
#[btf_map]
static SERVICE_COUNTERS: PerCpuArray<Counters, MAX_SERVICES> = PerCpuArray::new();
#[btf_map]
static SERVER_COUNTERS: PerCpuArray<Counters, MAX_REAL_SERVERS> = PerCpuArray::new();

/// A key is packed: on the stack it would lie anywhere, and its words be written unaligned.
#[repr(align(8))]
struct Aligned(Key<PortPrefix>);

/// The service of a place, if it is that of the key, before and after it was read: the daemon may
/// be giving the place to another.
#[inline(always)]
fn read_place(place: *const Place, key: &ServiceKey) -> Option<Service> {
    // SAFETY: words of a map's value, which is there for as long as the map is.
    let (before, service, id, after) = unsafe {
        (
            (&raw const (*place).key).read_volatile(),
            (&raw const (*place).service).read_volatile(),
            (&raw const (*place).id).read_volatile(),
            (&raw const (*place).key).read_volatile(),
        )
    };
    (before == *key && after == *key).then(|| Service::unpack(id, service))
}

#[inline(always)]
pub(crate) fn count_verdict(verdict: Verdict) {
    if let Some(counter) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: the counter is this CPU's own, and XDP runs do not nest.
        unsafe { *counter += 1 };
    }
}

/// The maps as they are.
pub(crate) struct KernelMaps;

impl Maps for KernelMaps {
    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        if let Some(place) = FRONT.get_ptr(key.place())
            && let Some(service) = read_place(place, key)
        {
            return Some(service);
        }
        // SAFETY: the kernel replaces entries whole; one that is deleted while we read it can at
        // worst be another service's, for the packet in hand.
        unsafe { SERVICES.get(key) }.copied()
    }

    #[inline(always)]
    fn has_port_ranges(&self) -> bool {
        SETTINGS.get(0).is_some_and(|settings| settings.port_ranges != 0)
    }

    #[inline(always)]
    fn port_range(&self, port: &PortPrefix) -> Option<&ServiceKey> {
        let key = Aligned(Key::new(PortPrefix::BITS, *port));
        PORT_RANGES.get(&key.0)
    }

    #[inline(always)]
    fn forward_until(&self, role: u32) -> Option<ForwardUntil> {
        ROLES.get(role).copied()
    }

    #[inline(always)]
    fn slot(&self, table: u32, slot: u32) -> Option<Slot> {
        let cell = TABLES.get_value(table, &(slot / Cell::SLOTS))?;
        // A shift of the cell as one integer: no variable offset for the verifier to bound.
        let [a, b, c, d] = cell.slots;
        let cell = u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48;
        Some((cell >> (16 * (slot % Cell::SLOTS))) as u16)
    }

    #[inline(always)]
    fn real_server(&self, index: u16) -> Option<&RealServer> {
        REAL_SERVERS.get(u32::from(index))
    }

    #[inline(always)]
    fn count(&self, service: u32, real_server: u16, counters: Counters) {
        let counted = [
            SERVICE_COUNTERS.get_ptr_mut(service),
            SERVER_COUNTERS.get_ptr_mut(real_server.into()),
        ];
        for counter in counted.into_iter().flatten() {
            // SAFETY: the counters are this CPU's own, and XDP runs do not nest.
            let counter = unsafe { &mut *counter };
            counter.packets += counters.packets;
            counter.bytes += counters.bytes;
            counter.new_flows += counters.new_flows;
        }
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }
}

impl Memory for KernelMaps {
    #[inline(always)]
    fn previous(&self, table: u32, slot: u32) -> Option<Previous> {
        PREVIOUS.get_value(table, &slot).copied()
    }

    #[inline(always)]
    fn mark_noted(&self, table: u32, slot: u32) {
        if let Some(previous) = PREVIOUS.get_value_ptr_mut(table, &slot) {
            // SAFETY: an aligned word of a map's value.
            unsafe { (&raw mut (*previous).noted).write_volatile(1) };
        }
    }

    #[inline(always)]
    fn stamp_previous(&self, table: u32, slot: u32, seen: Seconds) {
        if let Some(previous) = PREVIOUS.get_value_ptr_mut(table, &slot) {
            // SAFETY: an aligned word of a map's value; whoever writes last has seen it last.
            unsafe { (&raw mut (*previous).seen).write_volatile(seen) };
        }
    }

    #[inline(always)]
    fn note(&self, key: &FlowKey) -> Option<Note> {
        // SAFETY: copied at once; an entry that is deleted meanwhile may become another's note of
        // the same service at worst, for the packet in hand.
        unsafe { NOTES.get(key) }.copied()
    }

    #[inline(always)]
    fn set_note(&self, key: &FlowKey, note: &Note) -> bool {
        NOTES.insert(key, note, 0).is_ok()
    }

    #[inline(always)]
    fn touch_note(&self, key: &FlowKey, note: &Note) {
        if let Some(entry) = NOTES.get_ptr_mut(key) {
            // SAFETY: aligned words of a map's value.
            unsafe {
                (&raw mut (*entry).seen).write_volatile(note.seen);
                (&raw mut (*entry).state).write_volatile(note.state);
            }
        }
    }

    #[inline(always)]
    fn forget_note(&self, key: &FlowKey) {
        let _ = NOTES.remove(key);
    }

    #[inline(always)]
    fn opening(&self, key: &FlowKey) -> Option<Note> {
        // SAFETY: as in `note`.
        unsafe { OPENINGS.get(key) }.copied()
    }

    #[inline(always)]
    fn set_opening(&self, key: &FlowKey, note: &Note) -> bool {
        OPENINGS.insert(key, note, 0).is_ok()
    }

    #[inline(always)]
    fn forget_opening(&self, key: &FlowKey) {
        let _ = OPENINGS.remove(key);
    }

    #[inline(always)]
    fn is_full(&self) -> bool {
        SETTINGS.get(0).is_some_and(|settings| settings.flow_table_full != 0)
    }

    #[inline(always)]
    fn report_full(&self) {
        if let Some(settings) = SETTINGS.get_ptr_mut(0) {
            // SAFETY: an aligned word of a map's value.
            unsafe { (&raw mut (*settings).flow_table_full).write_volatile(1) };
        }
    }

    #[inline(always)]
    fn seconds(&self) -> Seconds {
        // SAFETY: a helper without arguments. The coarse clock runs with the other, some
        // milliseconds behind, and costs next to nothing.
        (unsafe { bpf_ktime_get_coarse_ns() } / 1_000_000_000) as Seconds
    }
}

/// The maps, to be looked at only.
pub(crate) struct Explainer {
    pub(crate) seen: Seen<Explanation>,
}

impl Maps for Explainer {
    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        KernelMaps.service(key)
    }

    #[inline(always)]
    fn has_port_ranges(&self) -> bool {
        KernelMaps.has_port_ranges()
    }

    #[inline(always)]
    fn port_range(&self, port: &PortPrefix) -> Option<&ServiceKey> {
        KernelMaps.port_range(port)
    }

    #[inline(always)]
    fn forward_until(&self, role: u32) -> Option<ForwardUntil> {
        KernelMaps.forward_until(role)
    }

    #[inline(always)]
    fn slot(&self, table: u32, slot: u32) -> Option<Slot> {
        KernelMaps.slot(table, slot)
    }

    #[inline(always)]
    fn real_server(&self, index: u16) -> Option<&RealServer> {
        KernelMaps.real_server(index)
    }

    #[inline(always)]
    fn count(&self, _: u32, _: u16, _: Counters) {}

    #[inline(always)]
    fn now(&self) -> u64 {
        KernelMaps.now()
    }

    #[inline(always)]
    fn saw(&self, step: Step) {
        let seen = self.seen.get();
        self.seen.set(match step {
            Step::Service(service) => Explanation { service, ..seen },
            Step::Slot { slot, owner } => Explanation { slot, current: owner, ..seen },
            Step::Change { table, slot } => Explanation {
                previous: self
                    .previous(table, slot)
                    .map_or(Previous::NONE.real_server, |previous| previous.real_server),
                ..seen
            },
            Step::Choice(choice) => {
                Explanation { real_server: choice.real_server, why: choice.why as u8, ..seen }
            }
        });
    }
}

impl Memory for Explainer {
    #[inline(always)]
    fn previous(&self, table: u32, slot: u32) -> Option<Previous> {
        KernelMaps.previous(table, slot)
    }

    #[inline(always)]
    fn mark_noted(&self, _: u32, _: u32) {}

    #[inline(always)]
    fn stamp_previous(&self, _: u32, _: u32, _: Seconds) {}

    #[inline(always)]
    fn note(&self, key: &FlowKey) -> Option<Note> {
        KernelMaps.note(key)
    }

    #[inline(always)]
    fn set_note(&self, _: &FlowKey, _: &Note) -> bool {
        true
    }

    #[inline(always)]
    fn touch_note(&self, _: &FlowKey, _: &Note) {}

    #[inline(always)]
    fn forget_note(&self, _: &FlowKey) {}

    #[inline(always)]
    fn opening(&self, key: &FlowKey) -> Option<Note> {
        KernelMaps.opening(key)
    }

    #[inline(always)]
    fn set_opening(&self, _: &FlowKey, _: &Note) -> bool {
        true
    }

    #[inline(always)]
    fn forget_opening(&self, _: &FlowKey) {}

    #[inline(always)]
    fn is_full(&self) -> bool {
        KernelMaps.is_full()
    }

    #[inline(always)]
    fn report_full(&self) {}

    #[inline(always)]
    fn seconds(&self) -> Seconds {
        KernelMaps.seconds()
    }
}
