//! Bounds-checked views of a packet. The only module here that turns an address into a reference.
//!
//! A [`Packet`] is built once per program run, from the two context pointers. Every header is
//! read through [`Packet::view`] or written through [`Packet::view_mut`]; both compare the end
//! of the view with the end of the packet in the form the verifier can follow, so callers write
//! neither pointer arithmetic nor `unsafe`.

#![expect(unsafe_code, reason = "turns packet addresses into references")]

use core::{marker::PhantomData, mem::size_of};

/// A header that may be overlaid on packet bytes.
///
/// # Safety
///
/// The alignment is 1 and every bit pattern is a valid value.
pub unsafe trait Header: Copy {}

/// A byte offset from the start of the packet, at most [`Offset::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offset(u16);

impl Offset {
    pub const START: Self = Self(0);
    /// Deepest header we look at. The verifier accepts a variable offset only under a constant bound.
    pub const MAX: u16 = 255;

    /// The offset just past a `T` at `self`.
    #[inline(always)]
    pub fn after<T: Header>(self) -> Option<Self> {
        #[expect(clippy::cast_possible_truncation, reason = "headers are tens of bytes long")]
        self.plus(size_of::<T>() as u16)
    }

    #[inline(always)]
    pub fn plus(self, bytes: u16) -> Option<Self> {
        let sum = self.0.checked_add(bytes)?;
        if sum > Self::MAX { None } else { Some(Self(sum)) }
    }
}

/// The bytes of one packet, valid for the run `'p` of the program.
pub struct Packet<'p> {
    start: usize,
    end: usize,
    _bytes: PhantomData<&'p mut [u8]>,
}

impl<'p> Packet<'p> {
    /// # Safety
    ///
    /// `start..end` is readable and writable for `'p`, and nothing else refers to it.
    #[inline(always)]
    pub unsafe fn new(start: usize, end: usize) -> Self {
        Self { start, end, _bytes: PhantomData }
    }

    /// The packet that a whole frame in memory is, for runs outside the kernel.
    pub fn from_frame(frame: &'p mut [u8]) -> Self {
        let range = frame.as_mut_ptr_range();
        // SAFETY: the range is the slice, borrowed exclusively for `'p`.
        unsafe { Self::new(range.start as usize, range.end as usize) }
    }

    /// Bytes from the first to the last.
    #[inline(always)]
    pub fn len(&self) -> u64 {
        (self.end - self.start) as u64
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    #[inline(always)]
    pub fn view<T: Header>(&self, at: Offset) -> Option<&T> {
        let ptr = self.locate::<T>(at)?;
        // SAFETY: `locate` checked the range, `T: Header` allows any bytes and any address, and
        // the borrow of `self` excludes a mutable view.
        Some(unsafe { &*ptr })
    }

    #[inline(always)]
    pub fn view_mut<T: Header>(&mut self, at: Offset) -> Option<&mut T> {
        let ptr = self.locate::<T>(at)?;
        // SAFETY: as in `view`; `&mut self` makes this the only view.
        Some(unsafe { &mut *ptr })
    }

    #[inline(always)]
    fn locate<T: Header>(&self, at: Offset) -> Option<*mut T> {
        let from = self.start + usize::from(at.0);
        if from + size_of::<T>() > self.end {
            return None;
        }
        Some(from as *mut T)
    }
}

/// Defines a header as byte arrays of the given lengths, in wire order.
macro_rules! header {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $len:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        pub struct $name { $(pub $field: [u8; $len],)* }

        // SAFETY: `repr(C)`, and every field is an array of `u8`.
        #[expect(unsafe_code, reason = "sound by construction")]
        unsafe impl $crate::packet::Header for $name {}
    };
}
pub(crate) use header;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::{Ipv4, Udp};

    #[test]
    fn a_view_ends_at_the_packet_end() {
        let mut bytes = [0u8; 28];
        for len in 0..=bytes.len() {
            let packet = Packet::from_frame(&mut bytes[..len]);
            assert_eq!(packet.view::<Ipv4>(Offset::START).is_some(), len >= 20, "len {len}");
            let l4 = Offset::START.after::<Ipv4>().unwrap();
            assert_eq!(packet.view::<Udp>(l4).is_some(), len >= 28, "len {len}");
        }
    }

    #[test]
    fn an_offset_never_passes_its_bound() {
        assert_eq!(Offset::START.plus(Offset::MAX), Some(Offset(255)));
        assert_eq!(Offset::START.plus(Offset::MAX).unwrap().plus(1), None);
        assert_eq!(Offset::START.plus(1).unwrap().plus(u16::MAX), None);
    }
}
