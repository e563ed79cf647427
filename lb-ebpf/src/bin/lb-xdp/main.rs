//! The XDP program of a director: its entry, and the answer to `flow explain`.

#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "context pointers, and references into maps")]

mod maps;

use core::cell::Cell;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{xdp_action, xdp_md},
    helpers::bpf_xdp_adjust_tail,
    macros::xdp,
    programs::XdpContext,
};
use lb_ebpf::{
    abi::Explanation,
    director,
    packet::Packet,
    reset,
    verdict::{Action, Verdict},
};
use maps::{Explainer, KernelMaps};

#[xdp]
fn lb_xdp(ctx: XdpContext) -> u32 {
    // Packets from a wire have none, or that of somebody else; a driver that knows no metadata says
    // that it begins behind the packet's start.
    if ctx.metadata() < ctx.data()
        && let Some(action) = explain(&ctx)
    {
        return action;
    }
    let mut packet = packet(&ctx);
    let mut verdict = director::handle(&mut packet, ctx.ingress_ifindex() as u32, &KernelMaps);
    if verdict == Verdict::Reset && !trim(&ctx) {
        verdict = Verdict::RealServerGone;
    }
    maps::count_verdict(verdict);
    match verdict.action() {
        Action::Transmit => xdp_action::XDP_TX,
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
    }
}

/// The start is read anew: once it has been found equal to that of the metadata, the compiler may
/// use either, but the verifier knows the bounds of one alone.
#[inline(always)]
fn packet(ctx: &XdpContext) -> Packet<'_> {
    let md = ctx.as_ptr().cast::<xdp_md>();
    // SAFETY: the context lives as long as the run; and the kernel gives each run exclusive use of
    // the packet's bytes.
    unsafe { Packet::new((&raw const (*md).data).read_volatile() as usize, ctx.data_end()) }
}

/// Leaves of the frame what [`reset::answer`] wrote.
fn trim(ctx: &XdpContext) -> bool {
    let len = (ctx.data_end() - ctx.data()) as i32;
    // SAFETY: no view of the packet is used any more.
    unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), i32::from(reset::FRAME_LEN) - len) == 0 }
}

/// Decides about a frame as about any other, and writes down how, but touches nothing else. `None`
/// if nobody has asked.
#[inline(never)]
fn explain(ctx: &XdpContext) -> Option<u32> {
    let at = ctx.metadata();
    if at + size_of::<Explanation>() > ctx.data() {
        return None;
    }
    let answer = at as *mut Explanation;
    // SAFETY: in bounds, as checked; metadata is aligned to four bytes, and ours alone.
    if unsafe { (*answer).question } != Explanation::QUESTION {
        return None;
    }
    let mut packet = packet(ctx);
    let explainer = Explainer { seen: Cell::new(Explanation::question()) };
    let verdict = director::handle(&mut packet, ctx.ingress_ifindex() as u32, &explainer);
    let explanation = Explanation { verdict: verdict as u8, ..explainer.seen.get() };
    // SAFETY: as above.
    unsafe { answer.write(explanation) };
    Some(xdp_action::XDP_PASS)
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
