//! The XDP program of a director, and its maps.

#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "context pointers, and references into maps")]

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray},
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_ebpf::{
    abi::{
        Cell, ForwardUntil, MAX_REAL_SERVERS, MAX_ROLES, MAX_SERVICES, MAX_TABLES, RealServer,
        Service, ServiceKey,
    },
    director::{self, Maps},
    packet::Packet,
    verdict::{Action, Verdict},
};

const BPF_F_INNER_MAP: usize = 1 << 12;

#[btf_map]
static SERVICES: HashMap<ServiceKey, Service, MAX_SERVICES> = HashMap::new();
/// Tables differ in size, which the kernel allows for inner maps made with this flag.
#[btf_map]
static TABLES: ArrayOfMaps<Array<Cell, 1, BPF_F_INNER_MAP>, MAX_TABLES> = ArrayOfMaps::new();
#[btf_map]
static REAL_SERVERS: Array<RealServer, MAX_REAL_SERVERS> = Array::new();
#[btf_map]
static ROLES: Array<ForwardUntil, MAX_ROLES> = Array::new();
#[btf_map]
static VERDICTS: PerCpuArray<u64, { Verdict::ALL.len() }> = PerCpuArray::new();

#[xdp]
pub fn lb_xdp(ctx: XdpContext) -> u32 {
    // SAFETY: the kernel gives each program run exclusive use of these bytes.
    let mut packet = unsafe { Packet::new(ctx.data(), ctx.data_end()) };
    let verdict = director::handle(&mut packet, ctx.ingress_ifindex() as u32, &KernelMaps);
    count(verdict);
    match verdict.action() {
        Action::Transmit => xdp_action::XDP_TX,
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
    }
}

#[inline(always)]
fn count(verdict: Verdict) {
    if let Some(counter) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: the counter is this CPU's own, and XDP runs do not nest.
        unsafe { *counter += 1 };
    }
}

struct KernelMaps;

impl Maps for KernelMaps {
    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        // SAFETY: the kernel replaces entries whole; one that is deleted while we read it can at
        // worst be another service's, for the packet in hand.
        unsafe { SERVICES.get(key) }
    }

    #[inline(always)]
    fn forward_until(&self, role: u32) -> Option<ForwardUntil> {
        ROLES.get(role).copied()
    }

    #[inline(always)]
    fn slot(&self, table: u32, slot: u32) -> Option<u16> {
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
    fn now(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
