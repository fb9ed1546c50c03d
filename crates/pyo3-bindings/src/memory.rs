//! What comes of an allocation of Rust's that fails: a sentence on standard error, and the end of the process at
//! once. Rust's collections have no other way out, and a panic would need memory to go on.
//!
//! Allocations of the interpreter's, and the mappings for stacks, are another matter: they raise MemoryError.

use std::alloc::{GlobalAlloc, Layout, System};

struct Ending;

#[global_allocator]
static ALLOCATOR: Ending = Ending;

// SAFETY: it is the system's allocator, and a null pointer is never given.
unsafe impl GlobalAlloc for Ending {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        there(unsafe { System.alloc(layout) }, layout.size())
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        there(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise; all memory is the system allocator's.
        there(unsafe { System.realloc(ptr, layout, size) }, size)
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; all memory is the system allocator's.
        unsafe { System.dealloc(ptr, layout) };
    }
}

#[inline(always)]
fn there(memory: *mut u8, size: usize) -> *mut u8 {
    if memory.is_null() {
        end(size);
    }
    memory
}

/// What is written, up to the number.
const BEFORE: &[u8] = b"gevent: Rust's allocator has no memory for ";
/// And behind it.
const AFTER: &[u8] = b" bytes; the process ends\n";

#[cold]
#[inline(never)]
fn end(size: usize) -> ! {
    let mut digits = [0; 20];
    let mut first = digits.len();
    let mut left = size;
    loop {
        first -= 1;
        digits[first] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    let mut text = [0; BEFORE.len() + 20 + AFTER.len()];
    let mut len = 0;
    for part in [BEFORE, &digits[first..], AFTER] {
        text[len..len + part.len()].copy_from_slice(part);
        len += part.len();
    }
    // SAFETY: bytes that live while they are written, and the end of the process.
    unsafe {
        libc::write(2, text.as_ptr().cast(), len);
        libc::abort()
    }
}
