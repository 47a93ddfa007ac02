//! The pointers that C callers pass, as argument types: the only place that follows them. A null pointer answers
//! `NVML_ERROR_INVALID_ARGUMENT`. Reads and writes are unaligned, so that a caller's packing does not matter.

use std::ffi::{CStr, c_char};

use crate::code::Code;

/// A pointer that the function writes through.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T: Copy> Out<T> {
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }

    pub fn check(&self) -> Result<(), Code> {
        if self.is_null() { Err(Code::InvalidArgument) } else { Ok(()) }
    }

    pub fn set(&self, value: T) -> Result<(), Code> {
        self.check()?;
        // SAFETY: not null, and NVML's contract is that the caller passes memory for one `T`.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Reads what the caller put there: a count, or a structure with its version.
    pub fn get(&self) -> Result<T, Code> {
        self.check()?;
        // SAFETY: not null, and NVML's contract is that the caller passes an initialized `T` where it is read.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// The same address as a pointer to another type: for structures that start alike and have a version.
    pub fn cast<U>(&self) -> Out<U> {
        Out(self.0.cast())
    }

    /// Writes an array of which the caller knows the length: NVML does not ask for it.
    pub fn fill(&self, items: &[T]) -> Result<(), Code> {
        self.check()?;
        for (at, item) in items.iter().enumerate() {
            // SAFETY: not null, and the caller passes room for all items.
            unsafe { self.0.add(at).write_unaligned(*item) };
        }
        Ok(())
    }
}

impl Out<c_char> {
    /// Writes a text with its NUL into a buffer of `length` bytes.
    pub fn set_text(&self, length: u32, text: &str) -> Result<(), Code> {
        self.check()?;
        if text.len() >= length as usize {
            return Err(Code::InsufficientSize);
        }
        for (at, byte) in text.bytes().chain([0]).enumerate() {
            // SAFETY: not null, and `at` is below the length the caller says it has.
            unsafe { self.0.add(at).write(byte.cast_signed()) };
        }
        Ok(())
    }
}

/// A pointer that the function reads through.
#[repr(transparent)]
pub(crate) struct In<T>(*const T);

impl<T: Copy> In<T> {
    pub fn get(&self) -> Result<T, Code> {
        if self.0.is_null() {
            return Err(Code::InvalidArgument);
        }
        // SAFETY: not null, and NVML's contract is that the caller passes one `T`.
        Ok(unsafe { self.0.read_unaligned() })
    }
}

impl In<c_char> {
    pub fn text(&self) -> Result<&str, Code> {
        if self.0.is_null() {
            return Err(Code::InvalidArgument);
        }
        // SAFETY: not null, and NVML's contract is a string that ends in NUL and stays for the call.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map_err(|_| Code::InvalidArgument)
    }
}

/// Writes a list whose length the caller asks for or offers: with too little room (or none) the answer is the
/// length that is needed and `NVML_ERROR_INSUFFICIENT_SIZE`.
pub(crate) fn set_list<T: Copy>(count: &Out<u32>, array: &Out<T>, items: &[T]) -> Result<(), Code> {
    let room = count.get()?;
    let length = u32::try_from(items.len()).map_err(|_| Code::Unknown)?;
    count.set(length)?;
    if room < length {
        return Err(Code::InsufficientSize);
    }
    if items.is_empty() { Ok(()) } else { array.fill(items) }
}

/// Writes a list whose length the caller does not say (instances and placements): without an array only the length.
pub(crate) fn set_unsized_list<T: Copy>(count: &Out<u32>, array: &Out<T>, items: &[T]) -> Result<(), Code> {
    count.set(u32::try_from(items.len()).map_err(|_| Code::Unknown)?)?;
    if array.is_null() || items.is_empty() { Ok(()) } else { array.fill(items) }
}

/// A text as the fixed array of a structure, cut if it is too long, always with a NUL.
pub(crate) fn text_array<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (to, byte) in array.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()) {
        *to = byte.cast_signed();
    }
    array
}

/// `NVML_STRUCT_VERSION`: size of the structure and number of its layout.
pub(crate) const fn struct_version<T>(number: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation)] // structures of NVML are far below 16 MiB
    let size = size_of::<T>() as u32;
    size | number << 24
}
