//! Stacks for fibers: slabs of guarded stacks, pooled by thread and reused last in, first out.
//!
//! A stack is one *slot* of a slab, 8 MiB of address space unless configured otherwise (1 MiB where a thread
//! has thousands in use, or address space is limited):
//!
//! ```text
//! low                                                                             high
//! | guard (64 KiB) |            C stack, grows down  <---|base|--->  annex (64 KiB) |
//!                  limit                           | one page |
//! ```
//!
//! The top of the C stack and the start of the annex (the embedder's: CPython's first data-stack chunk)
//! share a page, so that a parked fiber with a few frames has touched 4 KiB in all. `base` moves by a
//! cache line from slot to slot within that page, or the tops of all stacks would fall into the same
//! sets of the cache.
//!
//! - `config`: sizes and their classes.
//! - `slab`: mapping slabs; the registry that finds the stack of an address without a lock.
//! - `guard`: how the guards are made, by what the kernel offers.
//! - `pool`: taking, giving back, trimming.
//! - `overflow`: the signal handler that says in one sentence what a hit guard means.

mod config;
mod guard;
mod overflow;
mod pool;
mod slab;

pub use config::{
    CROWDED_SIZE, DEFAULT_SIZE, MANY, MAX_SIZE, MIN_SIZE, check_environment, default_size,
    parse_size, set_default_size,
};
pub use guard::GuardKind;
pub use overflow::{Namer, guard_this_thread, install_guard_handler, set_fiber_namer};
pub use pool::{Stats, acquire, acquire_sized, release, stats, trim_idle};

use corosensei::stack::{Stack, StackPointer};
use slab::Slot;

/// A stack from the pool: a guard, the C stack growing down, and an annex that starts at its top.
///
/// Dropping it gives it back to the pool of the thread that drops it.
#[derive(Debug)]
pub struct PooledStack(Slot);

impl PooledStack {
    /// The lowest usable address, above the guard.
    #[inline]
    pub fn limit_addr(&self) -> usize {
        self.0.limit()
    }

    /// One past the highest address of the C stack; the annex starts here.
    #[inline]
    pub fn base_addr(&self) -> usize {
        self.0.base()
    }

    /// Memory above the top of the C stack, untouched by it, for the embedder's own use while it has
    /// the stack: start and length in bytes. It holds whatever its last user left there.
    #[inline]
    pub fn annex(&self) -> (*mut u8, usize) {
        (self.0.base() as *mut u8, self.0.end() - self.0.base())
    }

    /// The address space of the whole slot in bytes, guard and annex included.
    #[inline]
    pub fn size(&self) -> usize {
        self.0.class().size()
    }
}

impl Drop for PooledStack {
    #[inline]
    fn drop(&mut self) {
        pool::give_back(self.0);
    }
}

// SAFETY: the range is mapped, writable, aligned to 16 bytes at the base, and has a guard below its limit.
unsafe impl Stack for PooledStack {
    #[inline]
    fn base(&self) -> StackPointer {
        StackPointer::new(self.0.base()).expect("a stack is not at address 0")
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        StackPointer::new(self.0.limit()).expect("a stack is not at address 0")
    }
}
