//! Maps as memory: inner maps that are made, filled and read as slices, and whole maps that are
//! read or written by one system call. aya has none of this.
//!
//! The only module here that speaks bpf(2) itself.

#![expect(unsafe_code, reason = "bpf(2) and mmap(2) have no safe wrappers")]

use std::{
    ffi::c_void,
    io,
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr::NonNull,
};

use aya::Pod;
use nix::{
    errno::Errno,
    libc,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};

// include/uapi/linux/bpf.h
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_F_INNER_MAP: u32 = 1 << 12;

/// How many entries are asked for at once.
const BATCH: usize = 4096;

/// An array map of `T`, mapped into memory. The kernel rounds its values up to eight bytes, which
/// `T`'s size must be a multiple of.
pub(super) struct Mapped<T> {
    fd: OwnedFd,
    start: NonNull<c_void>,
    len: usize,
    _values: PhantomData<T>,
}

// SAFETY: the memory is not bound to a thread.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    /// A new one, which may become the inner map of a map of such maps of any size.
    pub(super) fn create(name: &str, len: usize) -> io::Result<Self> {
        #[repr(C)]
        struct Create {
            kind: u32,
            key_size: u32,
            value_size: u32,
            max_entries: u32,
            flags: u32,
            inner_map_fd: u32,
            numa_node: u32,
            name: [u8; 16],
        }
        let mut attributes = Create {
            kind: BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: size(size_of::<T>())?,
            max_entries: size(len)?,
            flags: BPF_F_INNER_MAP | BPF_F_MMAPABLE,
            inner_map_fd: 0,
            numa_node: 0,
            name: [0; 16],
        };
        // The last byte stays zero.
        for (to, from) in attributes.name[..15].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        let fd = bpf(BPF_MAP_CREATE, &mut attributes)?;
        // SAFETY: a new descriptor, which nobody else has.
        Self::map(unsafe { OwnedFd::from_raw_fd(fd) }, len)
    }

    /// The inner map at `index` of a map of maps; `None` if there is none.
    pub(super) fn inner(outer: BorrowedFd<'_>, index: u32) -> io::Result<Option<Self>> {
        #[repr(C)]
        struct Lookup {
            fd: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let mut id = 0_u32;
        let mut lookup = Lookup {
            fd: raw(outer)?,
            key: (&raw const index) as u64,
            value: (&raw mut id) as u64,
            flags: 0,
        };
        match bpf(BPF_MAP_LOOKUP_ELEM, &mut lookup) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        }
        let fd = bpf(BPF_MAP_GET_FD_BY_ID, &mut [id, 0, 0])?;
        // SAFETY: a new descriptor, which nobody else has.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let len = max_entries(fd.as_fd())?;
        Self::map(fd, len).map(Some)
    }

    /// The array map `fd`, made to be mapped.
    pub(super) fn map(fd: OwnedFd, len: usize) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let bytes = NonZeroUsize::new(len * size_of::<T>())
            .ok_or_else(|| io::Error::from(Errno::EINVAL))?;
        // SAFETY: a new mapping, of memory that the kernel keeps for as long as it is mapped.
        let start = unsafe {
            mmap(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &fd,
                0,
            )
        }?;
        Ok(Self { fd, start, len, _values: PhantomData })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Copies; what the datapath writes meanwhile may be in it or not, value by value.
    pub(super) fn read(&self) -> Vec<T> {
        let start = self.start.cast::<T>().as_ptr();
        // SAFETY: within the mapping, aligned to a page, and of any bits, as `T: Pod`.
        (0..self.len).map(|index| unsafe { start.add(index).read_volatile() }).collect()
    }

    /// False if there is no such index.
    pub(super) fn write(&mut self, index: usize, value: T) -> bool {
        if index >= self.len {
            return false;
        }
        let start = self.start.cast::<T>().as_ptr();
        // SAFETY: as in `read`.
        unsafe { start.add(index).write_volatile(value) };
        true
    }

    pub(super) fn get(&self, index: usize) -> Option<T> {
        let start = self.start.cast::<T>().as_ptr();
        // SAFETY: as in `read`.
        (index < self.len).then(|| unsafe { start.add(index).read_volatile() })
    }

    /// Writes a field of a value, of eight bytes at most, in one piece, and after whatever was
    /// written before.
    pub(super) fn write_part<F: Pod>(
        &mut self,
        index: usize,
        field: impl FnOnce(&mut T) -> *mut F,
        value: F,
    ) -> bool {
        const { assert!(size_of::<F>() <= 8) };
        let Some(mut copy) = self.get(index) else { return false };
        let offset = field(&mut copy) as usize - (&raw const copy) as usize;
        if offset + size_of::<F>() > size_of::<T>() {
            return false;
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
        let start = self.start.cast::<T>().as_ptr();
        // SAFETY: within the value, and aligned as the field of a `T` is; others look at it while
        // it changes, which is what it is for.
        unsafe { start.add(index).byte_add(offset).cast::<F>().write_volatile(value) };
        true
    }

    /// Writes part of a value, so that the rest of it is not touched.
    pub(super) fn write_u16(&mut self, byte_offset: usize, value: u16) -> bool {
        if byte_offset + 2 > self.len * size_of::<T>() || !byte_offset.is_multiple_of(2) {
            return false;
        }
        // SAFETY: within the mapping, and aligned.
        unsafe { self.start.byte_add(byte_offset).cast::<u16>().write_volatile(value) };
        true
    }
}

impl<T> AsFd for Mapped<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference to it outlives `self`.
        let _ = unsafe { munmap(self.start, self.len * size_of::<T>()) };
    }
}

/// Puts inner maps into a map of maps. The kernel (6.8 and newer) waits for the packets in flight
/// once, not once for each.
pub(super) fn set_inner(
    outer: BorrowedFd<'_>,
    entries: &[(u32, BorrowedFd<'_>)],
) -> io::Result<()> {
    let keys: Vec<u32> = entries.iter().map(|(index, _)| *index).collect();
    let values: Vec<RawFd> = entries.iter().map(|(_, inner)| inner.as_raw_fd()).collect();
    let mut batch = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: size(entries.len())?,
        ..Batch::of(outer)?
    };
    if entries.is_empty() {
        return Ok(());
    }
    bpf(BPF_MAP_UPDATE_BATCH, &mut batch).map(drop)
}

/// All entries of a hash map. Those that come and go meanwhile may be among them or not.
pub(super) fn entries<K: Pod, V: Pod>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    let mut found = Vec::new();
    // The kernel keeps its place in four bytes of ours.
    let mut place = 0_u64;
    let mut wanted = BATCH;
    let mut first = true;
    loop {
        let mut keys = Vec::<K>::with_capacity(wanted);
        let mut values = Vec::<V>::with_capacity(wanted);
        let at = (&raw mut place) as u64;
        let mut batch = Batch {
            in_batch: if first { 0 } else { at },
            out_batch: at,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: size(wanted)?,
            ..Batch::of(map)?
        };
        let end = match bpf(BPF_MAP_LOOKUP_BATCH, &mut batch) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // A bucket holds more than there is room for.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                wanted *= 2;
                continue;
            }
            Err(error) => return Err(error),
        };
        let count = (batch.count as usize).min(wanted);
        // SAFETY: the kernel has written `count` whole keys and values, and any bits are valid.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        found.extend(keys.into_iter().zip(values));
        first = false;
        if end {
            return Ok(found);
        }
    }
}

/// Of `union bpf_attr`, what batches use.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

impl Batch {
    fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        let map_fd = raw(map)?;
        Ok(Self {
            in_batch: 0,
            out_batch: 0,
            keys: 0,
            values: 0,
            count: 0,
            map_fd,
            elem_flags: 0,
            flags: 0,
        })
    }
}

/// The capacity of a map.
pub(super) fn max_entries(map: BorrowedFd<'_>) -> io::Result<usize> {
    /// The beginning of `struct bpf_map_info`.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
    }
    #[repr(C)]
    struct Get {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut info = Info::default();
    let mut get =
        Get { fd: raw(map)?, len: size(size_of::<Info>())?, info: (&raw mut info) as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut get)?;
    Ok(info.max_entries as usize)
}

fn raw(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(|_| Errno::EBADF.into())
}

fn size(len: usize) -> io::Result<u32> {
    u32::try_from(len).map_err(|_| Errno::E2BIG.into())
}

/// Every command takes a part of `union bpf_attr` and its size; the rest counts as zero.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the pointers in the attributes are to live memory of the sizes that are stated, as
    // each caller sees to.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    match RawFd::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}
