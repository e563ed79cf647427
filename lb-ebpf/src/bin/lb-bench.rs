//! The programs of the bench: an entry that makes every repeat of `BPF_PROG_TEST_RUN` an honest
//! one, the floors that the program under test is compared with, and a source and a sink of
//! packets for comparisons on real interfaces.
//!
//! The kernel gives a repeat the frame and the pointers that the last one left. [`bench_entry`]
//! restores both, gives the packet its flow, and tail-calls the program under test, whose return
//! value is that of the run.

#![no_std]
#![no_main]
// Rust has no atomic addition for BPF, and its inline assembly is not stable there.
#![feature(asm_experimental_arch)]
#![expect(unsafe_code, reason = "context pointers, references into maps, the tail call")]

use core::{arch::asm, ptr};

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, PerCpuArray},
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    macros::{btf_map, map, xdp},
    maps::ProgramArray,
    programs::XdpContext,
};
use lb_ebpf::{
    header::{Ethernet, Ipv4, Udp},
    packet::{Offset, Packet},
};

/// The frame of every case, in words: restoring a whole word is one store.
const WORDS: usize = 8;
const FRAME_LEN: usize = WORDS * size_of::<u64>();
/// Where an IPv4 packet without options has its checksum, the host part of its source address,
/// which is zero in the template, and its source port.
const IPV4_CHECKSUM: usize = 24;
const SOURCE_HOST: usize = 28;
const SOURCE_PORT: usize = 34;
/// 2^32 divided by the golden ratio: its multiples visit every flow, evenly, in no order that a
/// prefetcher knows.
const STRIDE: u32 = 0x9e37_79b9;

#[map]
static UNDER_TEST: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[btf_map]
static TEMPLATE: Array<[u64; WORDS], 1> = Array::new();
/// How many flows there are.
#[btf_map]
static FLOWS: Array<u32, 1> = Array::new();
/// Addresses of the frame's start and end; zeros before the first repeat of a run, as each run
/// has a frame of its own.
#[btf_map]
static ORIGIN: Array<[u64; 2], 1> = Array::new();
/// Packets so far, over all runs.
#[btf_map]
static SEQUENCE: Array<u64, 1> = Array::new();
/// Packets that reached the sink.
#[btf_map]
static SUNK: PerCpuArray<u64, 1> = PerCpuArray::new();

#[xdp]
pub fn bench_entry(ctx: XdpContext) -> u32 {
    if prepare(&ctx).is_some() {
        // SAFETY: nothing of ours is to be dropped.
        unsafe { UNDER_TEST.tail_call(&ctx, 0) };
    }
    // Nothing to call, or a frame of another length.
    xdp_action::XDP_ABORTED
}

/// The frame as it was, but of the next flow.
#[inline(always)]
fn prepare(ctx: &XdpContext) -> Option<()> {
    move_back(ctx)?;
    write_next(ctx)
}

/// Writes the packet of the next flow over the frame. The steps are the same for any number of
/// flows.
#[inline(always)]
fn write_next(ctx: &XdpContext) -> Option<()> {
    let sequence = SEQUENCE.get_ptr_mut(0)?;
    // SAFETY: the value is there for as long as the program runs, and no other CPU uses it.
    let number = unsafe { *sequence } as u32;
    let flows = *FLOWS.get(0)?;
    let flow = ((u64::from(number.wrapping_mul(STRIDE)) * u64::from(flows)) >> 32) as u32;
    let words = TEMPLATE.get(0)?;

    let (start, end) = (ctx.data(), ctx.data_end());
    if start + FRAME_LEN > end {
        return None;
    }
    // SAFETY: the range was compared with the packet's end; the target allows any alignment.
    unsafe {
        for (index, word) in words.iter().enumerate() {
            ((start + index * size_of::<u64>()) as *mut u64).write_unaligned(*word);
        }
        // A million flows are 2^16 addresses with 16 ports each.
        let host = flow & 0xffff;
        ((start + SOURCE_HOST) as *mut u16).write_unaligned((host as u16).to_be());
        let port = 1024 + (flow >> 16) as u16;
        ((start + SOURCE_PORT) as *mut u16).write_unaligned(port.to_be());
        // RFC 1624, for a half of the address that was zero.
        let checksum = (start + IPV4_CHECKSUM) as *mut u16;
        let sum = u32::from(!u16::from_be(checksum.read_unaligned())) + host;
        checksum.write_unaligned((!((sum & 0xffff) + (sum >> 16)) as u16).to_be());
    }
    // Atomic, because that empties the CPU's store buffer: else the program under test would wait
    // for the stores above, where a network card's are long done.
    // SAFETY: adds to the value above, and touches nothing else.
    unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) sequence, in(reg) 1_u64) };
    Some(())
}

/// Undoes what the last repeat did by `adjust_head` and `adjust_tail`.
#[inline(always)]
fn move_back(ctx: &XdpContext) -> Option<()> {
    let origin = ORIGIN.get_ptr_mut(0)?;
    let (start, end) = (as_number(ctx.data())?, as_number(ctx.data_end())?);
    // SAFETY: the value is there for as long as the program runs, and no other CPU uses it.
    let [first_start, first_end] = unsafe { *origin };
    if first_start == 0 {
        // SAFETY: as above.
        unsafe { *origin = [start, end] };
        return Some(());
    }
    if start != first_start {
        // SAFETY: the context is the one that the kernel gave us.
        unsafe { bpf_xdp_adjust_head(ctx.ctx, first_start.wrapping_sub(start) as i32) };
    }
    if end != first_end {
        // SAFETY: as above.
        unsafe { bpf_xdp_adjust_tail(ctx.ctx, first_end.wrapping_sub(end) as i32) };
    }
    Some(())
}

/// The verifier tracks a packet pointer until it has been in a map.
#[inline(always)]
fn as_number(pointer: usize) -> Option<u64> {
    #[btf_map]
    static SCRATCH: Array<u64, 1> = Array::new();
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the value is there for as long as the program runs, and no other CPU uses it.
    unsafe {
        ptr::write_volatile(scratch, pointer as u64);
        Some(ptr::read_volatile(scratch))
    }
}

/// Sends a packet out of the interface that the run is for; for runs of live frames. Those are
/// recycled once they have arrived, with whatever became of them, so all of it is written anew.
#[xdp]
pub fn generator(ctx: XdpContext) -> u32 {
    match write_next(&ctx) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Counts UDP packets and ends them here; all others, such as ARP, are the kernel's.
#[xdp]
pub fn sink(ctx: XdpContext) -> u32 {
    // SAFETY: the kernel gives each program run exclusive use of these bytes.
    let packet = unsafe { Packet::new(ctx.data(), ctx.data_end()) };
    if !is_udp(&packet).unwrap_or(false) {
        return xdp_action::XDP_PASS;
    }
    if let Some(count) = SUNK.get_ptr_mut(0) {
        // SAFETY: the counter is this CPU's own, and XDP runs do not nest.
        unsafe { *count += 1 };
    }
    xdp_action::XDP_DROP
}

#[inline(always)]
fn is_udp(packet: &Packet<'_>) -> Option<bool> {
    let ethernet = packet.view::<Ethernet>(Offset::START)?;
    let ip = packet.view::<Ipv4>(Offset::START.after::<Ethernet>()?)?;
    Some(ethernet.ethertype == Ethernet::IPV4 && ip.protocol() == Ipv4::UDP)
}

/// The least that an XDP program can do.
#[xdp]
pub fn floor_pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The least that a program which forwards can do: it reads as far as the ports, and sends the
/// packet back where it came from. No map.
#[xdp]
pub fn floor_tx(ctx: XdpContext) -> u32 {
    // SAFETY: the kernel gives each program run exclusive use of these bytes.
    let mut packet = unsafe { Packet::new(ctx.data(), ctx.data_end()) };
    match reflect(&mut packet) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_PASS,
    }
}

/// A parser of its own: a floor that had the director's would rise with it.
#[inline(always)]
fn reflect(packet: &mut Packet<'_>) -> Option<()> {
    let ethernet = *packet.view::<Ethernet>(Offset::START)?;
    let l3 = Offset::START.after::<Ethernet>()?;
    let ip = packet.view::<Ipv4>(l3)?;
    let is_flow = matches!(ip.protocol(), Ipv4::TCP | Ipv4::UDP) && !ip.is_fragment();
    let l4 = packet.view::<Udp>(l3.plus(ip.header_len()?)?)?;
    if ethernet.ethertype != Ethernet::IPV4 || !is_flow || l4.dst == [0; 2] {
        return None;
    }
    let out = packet.view_mut::<Ethernet>(Offset::START)?;
    out.dst = ethernet.src;
    out.src = ethernet.dst;
    Some(())
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
