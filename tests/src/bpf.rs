//! bpf(2) where aya has no way to say it.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for these commands")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::libc;

// include/uapi/linux/bpf.h
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Loads an XDP program of a few instructions, without an object file.
pub fn load_xdp(instructions: &[[u8; 8]]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct ProgLoad {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
    }
    let mut attributes = ProgLoad {
        kind: BPF_PROG_TYPE_XDP,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
    };
    // SAFETY: the attributes of BPF_PROG_LOAD up to `license`, the rest of which the kernel takes
    // as zero; both pointers are to live memory of the length that is stated.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attributes)? };
    // SAFETY: the command returns a new descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches an XDP program in native mode, for as long as the link is open.
pub fn link_native_xdp(program: &OwnedFd, interface: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct LinkCreate {
        program: RawFd,
        interface: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attributes = LinkCreate {
        program: program.as_raw_fd(),
        interface,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    // SAFETY: the attributes of BPF_LINK_CREATE up to `flags`; they hold no pointer.
    let fd = unsafe { bpf(BPF_LINK_CREATE, &mut attributes)? };
    // SAFETY: as in `load_xdp`.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs an XDP program once on a frame as if that had come in by `interface` of the calling
/// thread's namespace; returns the XDP action. Nothing is sent.
///
/// aya would do so for programs that it has loaded itself.
pub fn test_run_xdp(program: BorrowedFd<'_>, frame: &[u8], interface: u32) -> io::Result<u32> {
    /// `struct xdp_md`
    #[repr(C)]
    struct Context {
        data: u32,
        data_end: u32,
        data_meta: u32,
        ingress_interface: u32,
        rx_queue: u32,
        egress_interface: u32,
    }
    #[repr(C)]
    struct TestRun {
        program: RawFd,
        action: u32,
        frame_len: u32,
        frame_out_len: u32,
        frame: u64,
        frame_out: u64,
        repeat: u32,
        duration: u32,
        context_len: u32,
        context_out_len: u32,
        context: u64,
        context_out: u64,
    }
    let frame_len = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let context = Context {
        data: 0,
        data_end: frame_len,
        data_meta: 0,
        ingress_interface: interface,
        rx_queue: 0,
        egress_interface: 0,
    };
    let mut attributes = TestRun {
        program: program.as_raw_fd(),
        action: 0,
        frame_len,
        frame_out_len: 0,
        frame: frame.as_ptr() as u64,
        frame_out: 0,
        repeat: 1,
        duration: 0,
        context_len: u32::try_from(size_of::<Context>()).map_err(io::Error::other)?,
        context_out_len: 0,
        context: &raw const context as u64,
        context_out: 0,
    };
    // SAFETY: the attributes of BPF_PROG_TEST_RUN up to `ctx_out`, the rest of which the kernel
    // takes as zero; the pointers in are to live memory of the length that is stated, and those
    // out are null.
    unsafe { bpf(BPF_PROG_TEST_RUN, &mut attributes)? };
    Ok(attributes.action)
}

/// # Safety
/// `attributes` are those of `command`.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    let attributes = &raw mut *attributes;
    // SAFETY: the kernel reads and writes at most `size_of::<T>()` bytes; the caller vouches for
    // what they mean.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    match RawFd::try_from(result) {
        Ok(value @ 0..) => Ok(value),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}
