//! `XDP_PASS` on an interface: what the far end of a veth pair needs for native `XDP_TX`.
//!
//! Two instructions do not deserve an object file, which is all that aya loads; so this speaks
//! bpf(2) itself.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for a program without an object")]

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use anyhow::Context;
use nix::{libc, net::if_::if_nametoindex};

use crate::netns::Netns;

/// The program on one interface; detached when dropped, or when the process ends.
pub struct XdpPass {
    _link: OwnedFd,
}

impl XdpPass {
    /// Attaches to `interface` in `netns`, in native mode.
    pub fn attach(netns: &Netns, interface: &str) -> anyhow::Result<Self> {
        netns
            .enter(|| {
                let index = if_nametoindex(interface)?;
                let program = load_program()?;
                create_link(&program, index)
            })?
            .map(|link| Self { _link: link })
            .with_context(|| format!("attach XDP_PASS to {interface} in {}", netns.name()))
    }
}

// include/uapi/linux/bpf.h
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

fn load_program() -> io::Result<OwnedFd> {
    #[repr(C)]
    struct ProgLoad {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
    }
    // r0 = 2 (XDP_PASS); exit
    let instructions: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let attributes = ProgLoad {
        kind: BPF_PROG_TYPE_XDP,
        instruction_count: 2,
        instructions: instructions.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
    };
    // SAFETY: the attributes of BPF_PROG_LOAD up to `license`, the rest of which the kernel takes
    // as zero; both pointers are to live memory of the length that is stated.
    unsafe { bpf(BPF_PROG_LOAD, &attributes) }
}

fn create_link(program: &OwnedFd, interface: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct LinkCreate {
        program: RawFd,
        interface: u32,
        attach_type: u32,
        flags: u32,
    }
    let attributes = LinkCreate {
        program: program.as_raw_fd(),
        interface,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    // SAFETY: the attributes of BPF_LINK_CREATE up to `flags`; they hold no pointer.
    unsafe { bpf(BPF_LINK_CREATE, &attributes) }
}

/// # Safety
/// `attributes` are those of `command`, which returns a descriptor.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes; the caller vouches for what they mean.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    let Ok(fd @ 0..) = RawFd::try_from(fd) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
