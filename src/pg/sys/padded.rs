//! Structs of the server's that this library allocates, with room behind them. Their size is that of the headers the library was built with;
//! a later minor release may have added a field at the end, which the server then reads and writes.

use pgrx::pg_sys;
use std::ops::{Deref, DerefMut};

/// Bytes of room. Fields that minor releases added were of 8 bytes at most.
const SLACK: usize = 256;

/// A struct and room behind it, all zeroes at first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Padded<T> {
    value: T,
    slack: [u8; SLACK],
}

impl<T> From<T> for Padded<T> {
    fn from(value: T) -> Padded<T> {
        Padded { value, slack: [0; SLACK] }
    }
}

impl<T: Default> Default for Padded<T> {
    fn default() -> Padded<T> {
        T::default().into()
    }
}

impl<T> Deref for Padded<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Padded<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Padded<T> {
    /// For the server, which knows the struct's real size: a pointer to all of it. A reference to the struct alone would not reach so far.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        (&raw mut *self).cast()
    }

    /// A zeroed struct in the current memory context, which owns it.
    pub fn allocate() -> *mut T {
        // SAFETY: allocates, or raises an ERROR; zeroes are a value of the C structs that this is called for.
        unsafe { pg_sys::palloc0(size_of::<Padded<T>>()) }.cast()
    }

    /// The same for a node, with its tag.
    pub fn node(tag: pg_sys::NodeTag) -> *mut T {
        let node = Padded::<T>::allocate();
        // SAFETY: just allocated; each node begins with its tag.
        unsafe { (*node.cast::<pg_sys::Node>()).type_ = tag };
        node
    }
}
