//! Mapping slabs of stacks, and the registry of those mapped.
//!
//! The registry answers one question for a signal handler: which stack does this address belong to? So it
//! is read without a lock: a table of blocks that are never freed, whose entries are published by their
//! address and cleared before the memory goes.

use super::config::{Class, PAGE};
use super::guard::{self, GuardKind};
use std::ffi::c_void;
use std::io;
use std::num::NonZeroU64;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// C stack in the page that it shares with the annex: 2048 bytes, and up to 15 cache lines more.
const SHARED_LEAST: usize = 2048;
const LINE: usize = 64;
const STAGGER: usize = 16;

/// One stack of a slab. Who holds it owns the memory.
///
/// One word, so that it travels in a register: a struct of several fields goes through memory at each hand,
/// by stores and loads of different widths, and waiting for these was dearer than the rest of an acquire.
/// From the low end: the slab's number, the class, the stagger, whether the guard is `Checked`, and the
/// number of the page at the limit.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Slot(NonZeroU64);

const SLAB_BITS: u32 = 19;
const CLASS_AT: u32 = SLAB_BITS;
const STAGGER_AT: u32 = CLASS_AT + 4;
const CHECKED_AT: u32 = STAGGER_AT + 4;
const LIMIT_AT: u32 = CHECKED_AT + 1;
/// User addresses have 48 bits at most unless higher ones are asked for.
const ADDRESS_BITS: u32 = 64 - LIMIT_AT + PAGE.trailing_zeros();

impl Slot {
    #[allow(clippy::precedence, reason = "shifts and ors, as anywhere")]
    fn new(limit: usize, class: Class, slab: u32, stagger: usize, guard: GuardKind) -> Self {
        debug_assert!(limit >> ADDRESS_BITS == 0 && slab >> SLAB_BITS == 0 && stagger < STAGGER);
        let word = ((limit / PAGE) as u64) << LIMIT_AT
            | u64::from(guard == GuardKind::Checked) << CHECKED_AT
            | (stagger as u64) << STAGGER_AT
            | (class.index() as u64) << CLASS_AT
            | u64::from(slab);
        Slot(NonZeroU64::new(word).expect("no stack lies at address 0"))
    }

    /// The slab's number in the registry.
    pub(super) fn slab(self) -> u32 {
        self.0.get() as u32 & ((1 << SLAB_BITS) - 1)
    }

    #[inline]
    pub(super) fn class(self) -> Class {
        Class::from_index((self.0.get() >> CLASS_AT) as usize & 15)
    }

    /// Whether its guard is [`GuardKind::Checked`].
    #[inline]
    pub(super) fn is_checked(self) -> bool {
        self.0.get() & (1 << CHECKED_AT) != 0
    }

    /// The lowest usable address.
    #[inline]
    pub(super) fn limit(self) -> usize {
        (self.0.get() >> LIMIT_AT) as usize * PAGE
    }

    /// Where the C stack ends and the annex begins.
    #[inline]
    pub(super) fn base(self) -> usize {
        let stagger = (self.0.get() >> STAGGER_AT) as usize & (STAGGER - 1);
        self.top_page() + SHARED_LEAST + stagger * LINE
    }

    /// One past the annex.
    #[inline]
    pub(super) fn end(self) -> usize {
        self.top_page() + self.class().annex()
    }

    /// The start of the page that C stack and annex share.
    #[inline]
    pub(super) fn top_page(self) -> usize {
        let class = self.class();
        self.limit() + class.size() - class.guard() - class.annex()
    }
}

/// One entry of the registry.
struct Entry {
    /// Where the slab starts; 0 while the entry is free.
    lo: AtomicUsize,
    slots: AtomicUsize,
    class: AtomicU8,
    guard: AtomicU8,
}

impl Entry {
    const fn free() -> Self {
        Entry {
            lo: AtomicUsize::new(0),
            slots: AtomicUsize::new(0),
            class: AtomicU8::new(0),
            guard: AtomicU8::new(0),
        }
    }
}

const BLOCK: usize = 256;
const BLOCKS: usize = (1 << SLAB_BITS) / BLOCK;
type Block = [Entry; BLOCK];

static TABLE: [AtomicPtr<Block>; BLOCKS] = [const { AtomicPtr::new(ptr::null_mut()) }; BLOCKS];
/// Entries ever used: the reader looks no further.
static USED: AtomicUsize = AtomicUsize::new(0);
/// Numbers that are free again.
static FREE: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn entry(number: usize) -> Option<&'static Entry> {
    let block = TABLE[number / BLOCK].load(Ordering::Acquire);
    // SAFETY: a block is published whole and lives for ever.
    unsafe { block.as_ref() }.map(|b| &b[number % BLOCK])
}

/// Locks, unless the lock cannot be had for long: a forked child may have copied it while a thread that the
/// child does not have was holding it.
pub(super) fn lock_patiently<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    for _ in 0..1000 {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(e)) => return Some(e.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

/// The block of entries that `number` falls into, made if need be; `None` if the table is full.
fn block_for(number: usize) -> Option<&'static Block> {
    let cell = TABLE.get(number / BLOCK)?;
    if cell.load(Ordering::Acquire).is_null() {
        let fresh = Box::into_raw(Box::new([const { Entry::free() }; BLOCK]));
        if cell
            .compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            // SAFETY: made above, and another thread's was published instead.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
    // SAFETY: a block is published whole and lives for ever.
    unsafe { cell.load(Ordering::Acquire).as_ref() }
}

fn register(lo: usize, class: Class, slots: usize, guard: GuardKind) -> Option<u32> {
    let again = lock_patiently(&FREE).and_then(|mut free| free.pop());
    let number = again.map_or_else(|| USED.fetch_add(1, Ordering::AcqRel), |n| n as usize);
    if number >> SLAB_BITS != 0 || (lo + slots * class.size()) >> ADDRESS_BITS != 0 {
        return None;
    }
    let e = &block_for(number)?[number % BLOCK];
    e.slots.store(slots, Ordering::Relaxed);
    e.class.store(class.index() as u8, Ordering::Relaxed);
    e.guard.store(guard as u8, Ordering::Relaxed);
    e.lo.store(lo, Ordering::Release);
    Some(number as u32)
}

/// What lies at an address.
#[derive(Debug)]
pub(super) struct Hit {
    /// Bytes of the slot.
    pub(super) size: usize,
    /// Whether the address is in the slot's guard.
    pub(super) in_guard: bool,
    /// The lowest usable address of the slot.
    pub(super) limit: usize,
}

/// The stack that `addr` belongs to. Async-signal-safe: it takes no lock and allocates nothing.
pub(super) fn find(addr: usize) -> Option<Hit> {
    for number in 0..USED.load(Ordering::Acquire) {
        let Some(e) = entry(number) else { continue };
        let lo = e.lo.load(Ordering::Acquire);
        let class = Class::from_index(e.class.load(Ordering::Relaxed) as usize);
        if lo != 0 && (lo..lo + class.size() * e.slots.load(Ordering::Relaxed)).contains(&addr) {
            let slot = lo + (addr - lo) / class.size() * class.size();
            let limit = slot + class.guard();
            return Some(Hit {
                size: class.size(),
                in_guard: addr < limit,
                limit,
            });
        }
    }
    None
}

/// Maps a slab, and gives its stacks to `each`, highest first.
///
/// # Errors
/// `ENOMEM` when not even one stack can be mapped.
pub(super) fn map(class: Class, mut each: impl FnMut(Slot)) -> io::Result<()> {
    let mut slots = class.slots();
    let lo = loop {
        match reserve(slots * class.size(), class) {
            Ok(lo) => break lo,
            // With strict accounting of memory (overcommit_memory=2) or a limit of address space (RLIMIT_AS)
            // a few more stacks may fit where a slab does not.
            Err(_) if slots > 1 => slots = (slots / 8).max(1),
            Err(e) => return Err(e),
        }
    };
    let unmap = |e: io::Error| {
        // SAFETY: the mapping made above; nobody has seen it.
        unsafe { libc::munmap(lo as *mut c_void, slots * class.size()) };
        e
    };
    // SAFETY: the fresh mapping.
    let guard = unsafe { guard::install(lo, class, slots) }.map_err(unmap)?;
    let Some(slab) = register(lo, class, slots, guard) else {
        guard::removed(guard, slots);
        return Err(unmap(io::Error::from_raw_os_error(libc::ENOMEM)));
    };
    for i in (0..slots).rev() {
        let limit = lo + i * class.size() + class.guard();
        each(Slot::new(limit, class, slab, i % STAGGER, guard));
    }
    Ok(())
}

/// What one page of a page table maps.
const TABLE_SPAN: usize = 512 * PAGE;

/// Maps `len` bytes for stacks of `class`. Where a stack spans several page tables, a guard's end is at the
/// start of what a table maps: the guard is then in the table of the top of the stack below it, and a fiber
/// that is parked with a few frames needs one table rather than two.
fn reserve(len: usize, class: Class) -> io::Result<usize> {
    if class.size() < TABLE_SPAN {
        return reserve_anywhere(len);
    }
    let from = reserve_anywhere(len + TABLE_SPAN)?;
    let lo = (from + class.guard()).next_multiple_of(TABLE_SPAN) - class.guard();
    let (before, after) = (lo - from, from + TABLE_SPAN - lo);
    for (at, surplus) in [(from, before), (lo + len, after)] {
        if surplus > 0 {
            // SAFETY: a part of the mapping just made that is not used. If it stays, it costs addresses.
            unsafe { libc::munmap(at as *mut c_void, surplus) };
        }
    }
    Ok(lo)
}

fn reserve_anywhere(len: usize) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
    // SAFETY: a fresh anonymous mapping, anywhere.
    let lo = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        )
    };
    if lo == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // Huge pages would make 2 MiB of each page touched. A kernel built without them says EINVAL.
    #[cfg(target_os = "linux")]
    // SAFETY: the mapping just made.
    unsafe {
        libc::madvise(lo, len, libc::MADV_NOHUGEPAGE)
    };
    Ok(lo as usize)
}

#[cfg(target_os = "linux")]
const MAP_STACK: i32 = libc::MAP_STACK;
/// Elsewhere the flag means a mapping that grows by itself.
#[cfg(not(target_os = "linux"))]
const MAP_STACK: i32 = 0;
#[cfg(not(target_os = "freebsd"))]
const MAP_NORESERVE: i32 = libc::MAP_NORESERVE;
/// FreeBSD reserves nothing for private anonymous memory.
#[cfg(target_os = "freebsd")]
const MAP_NORESERVE: i32 = 0;

/// How many slots slab `number` has.
pub(super) fn slots_of(number: u32) -> usize {
    entry(number as usize).map_or(usize::MAX, |e| e.slots.load(Ordering::Relaxed))
}

/// Unmaps slab `number`.
///
/// # Safety
/// The caller owns each of its slots, and forgets them.
pub(super) unsafe fn unmap(number: u32) {
    let Some(e) = entry(number as usize) else {
        return;
    };
    let lo = e.lo.swap(0, Ordering::AcqRel);
    let class = Class::from_index(e.class.load(Ordering::Relaxed) as usize);
    let slots = e.slots.load(Ordering::Relaxed);
    if e.guard.load(Ordering::Relaxed) == GuardKind::Protected as u8 {
        guard::removed(GuardKind::Protected, slots);
    }
    // SAFETY: the caller's promise; the range is the one that was mapped.
    unsafe { libc::munmap(lo as *mut c_void, slots * class.size()) };
    if let Some(mut free) = lock_patiently(&FREE) {
        free.push(number);
    }
}

/// Slabs mapped now, by all threads, and their address space in bytes.
pub(super) fn mapped() -> (usize, usize) {
    let mut sum = (0, 0);
    for number in 0..USED.load(Ordering::Acquire) {
        if let Some(e) = entry(number)
            && e.lo.load(Ordering::Acquire) != 0
        {
            let class = Class::from_index(e.class.load(Ordering::Relaxed) as usize);
            sum = (
                sum.0 + 1,
                sum.1 + class.size() * e.slots.load(Ordering::Relaxed),
            );
        }
    }
    sum
}
