//! The pool of a thread: taking stacks, giving them back, and returning memory to the kernel.
//!
//! Free stacks lie in one list for each size class, last in first out. The list has a warm part at its end,
//! whose top pages are still in memory, and a cold part at its start, whose memory went back to the kernel.
//! Neither taking nor giving back makes a system call, with two exceptions: an empty list maps a slab, and
//! a stack that was used deeply gives up its lower pages at once.

use super::config::{CLASSES, Choice, Class, MANY, PAGE, choice};
use super::guard;
use super::slab::{self, Slot};
use super::{PooledStack, overflow};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Free warm stacks that a thread keeps whatever its load.
const WARM_FLOOR: usize = 256;
/// Stacks whose memory goes back to the kernel in one call of [`trim_idle`].
const TRIM_BATCH: usize = 128;
/// Cold stacks that stay mapped.
const COLD_FLOOR: usize = 1024;
/// How long a peak of live stacks is remembered, at least: in nanoseconds.
const WINDOW: u64 = 1_000_000_000;
/// C stack that stays in memory when a deep stack comes back, below its shared page.
const KEEP_BELOW: usize = 3 * PAGE;
/// Annex that stays in memory, above the shared page.
const KEEP_ABOVE: usize = 2 * PAGE;
/// Pages in which a deep use is looked for, nearest first: bytes below, and above, the shared page. A use is
/// deep if it left traces in all of them. A page that was never touched ends the search, as looking at it
/// costs a fault.
const MARKS_BELOW: [usize; 3] = [8 << 10, 16 << 10, 32 << 10];
const MARKS_ABOVE: [usize; 2] = [8 << 10, 16 << 10];

struct Shelf {
    free: Vec<Slot>,
    /// How many at the start of `free` are cold.
    cold: usize,
    /// Some became cold since slabs were last looked over for unmapping.
    unsorted: bool,
    /// Taken less given back by this thread, but never negative: the stacks that others left here must
    /// not look like room that this thread is used to need.
    live: isize,
    peak: isize,
    previous_peak: isize,
    window_start: u64,
}

impl Shelf {
    const fn new() -> Self {
        Shelf {
            free: Vec::new(),
            cold: 0,
            unsorted: false,
            live: 0,
            peak: 0,
            previous_peak: 0,
            window_start: 0,
        }
    }

    #[inline]
    fn take(&mut self, class: Class) -> io::Result<Slot> {
        if self.free.is_empty() {
            self.refill(class)?;
        }
        let slot = self.free.pop().expect("a refill brings at least one");
        self.cold = self.cold.min(self.free.len());
        self.live += 1;
        self.peak = self.peak.max(self.live);
        Ok(slot)
    }

    #[cold]
    fn refill(&mut self, class: Class) -> io::Result<()> {
        if adopt(class, &mut self.free) == 0 {
            slab::map(class, |slot| self.free.push(slot))?;
        }
        self.cold = self.free.len();
        Ok(())
    }

    #[inline]
    fn put(&mut self, slot: Slot) {
        self.live = (self.live - 1).max(0);
        self.free.push(slot);
    }

    fn warm(&self) -> usize {
        self.free.len() - self.cold
    }

    fn is_untidy(&self) -> bool {
        self.warm() > WARM_FLOOR || self.unsorted
    }

    /// One step of trimming; whether another will be due.
    fn trim(&mut self, now: u64) -> bool {
        if now.saturating_sub(self.window_start) >= WINDOW {
            self.previous_peak = self.peak;
            self.peak = self.live;
            self.window_start = now;
            if self.unsorted && self.previous_peak <= self.live.max(0) + COLD_FLOOR as isize {
                self.unsorted = false;
                self.unmap_cold(COLD_FLOOR);
            }
        }
        let peak = self.peak.max(self.previous_peak).max(0);
        let wanted = usize::try_from(peak - self.live)
            .unwrap_or(0)
            .max(WARM_FLOOR);
        let surplus = self.warm().saturating_sub(wanted).min(TRIM_BATCH);
        let batch = self.cold..self.cold + surplus;
        // SAFETY: the stacks are free.
        unsafe {
            guard::forget(
                self.free[batch]
                    .iter()
                    .map(|s| (s.limit(), s.end() - s.limit())),
            )
        };
        self.cold += surplus;
        self.unsorted |= surplus > 0 && self.cold > COLD_FLOOR;
        self.is_untidy()
    }

    /// Unmaps slabs that are wholly in the cold part, while more than `keep` stay there.
    fn unmap_cold(&mut self, keep: usize) {
        if self.cold <= keep {
            return;
        }
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for slot in &self.free[..self.cold] {
            *counts.entry(slot.slab()).or_default() += 1;
        }
        let mut surplus = self.cold - keep;
        counts.retain(|&number, &mut n| {
            let goes = n == slab::slots_of(number) && n <= surplus;
            if goes {
                surplus -= n;
            }
            goes
        });
        let (mut index, cold) = (0, self.cold);
        self.free.retain(|slot| {
            let was_cold = index < cold;
            index += 1;
            let goes = was_cold && counts.contains_key(&slot.slab());
            self.cold -= usize::from(goes);
            !goes
        });
        for &number in counts.keys() {
            // SAFETY: each of its slots was in `free` a moment ago, and is in nobody's hands now.
            unsafe { slab::unmap(number) };
        }
        self.free.shrink_to(2 * self.free.len());
    }
}

struct Pool {
    shelves: RefCell<[Shelf; CLASSES]>,
    deep: Cell<u64>,
    trimmed: Cell<u64>,
}

thread_local! {
    static POOL: Pool = const {
        Pool { shelves: RefCell::new([const { Shelf::new() }; CLASSES]), deep: Cell::new(0), trimmed: Cell::new(0) }
    };
}

impl Drop for Pool {
    fn drop(&mut self) {
        for shelf in self.shelves.get_mut() {
            let warm = shelf.free[shelf.cold..].iter();
            // SAFETY: the stacks are free.
            unsafe { guard::forget(warm.map(|s| (s.limit(), s.end() - s.limit()))) };
            shelf.cold = shelf.free.len();
            shelf.unmap_cold(0);
            shelf.free.drain(..).for_each(abandon);
        }
    }
}

/// Free stacks of threads that are gone, whose slabs have stacks elsewhere.
static ORPHANS: Mutex<Vec<Slot>> = Mutex::new(Vec::new());
static ORPHAN_COUNT: AtomicUsize = AtomicUsize::new(0);

fn abandon(slot: Slot) {
    // Without the lock, the stack is lost, and nothing else.
    if let Some(mut orphans) = slab::lock_patiently(&ORPHANS) {
        orphans.push(slot);
        ORPHAN_COUNT.store(orphans.len(), Ordering::Relaxed);
    }
}

/// Moves up to 64 orphans of `class` into `free`; how many there were.
fn adopt(class: Class, free: &mut Vec<Slot>) -> usize {
    if ORPHAN_COUNT.load(Ordering::Relaxed) == 0 {
        return 0;
    }
    let Some(mut orphans) = slab::lock_patiently(&ORPHANS) else {
        return 0;
    };
    let before = free.len();
    free.extend(orphans.extract_if(.., |s| s.class() == class).take(64));
    ORPHAN_COUNT.store(orphans.len(), Ordering::Relaxed);
    free.len() - before
}

/// Takes a stack of the default size from this thread's pool.
///
/// # Errors
/// `ENOMEM` when no more can be mapped.
#[inline]
pub fn acquire() -> io::Result<PooledStack> {
    match choice() {
        Choice::Only(class) => take(class),
        Choice::First(class) => {
            let slot = POOL.try_with(|pool| {
                let shelf = &mut pool.shelves.borrow_mut()[class.index()];
                (shelf.live < MANY as isize).then(|| shelf.take(class))
            });
            match slot {
                Ok(Some(Ok(slot))) => Ok(PooledStack(slot)),
                _ => take(Class::CROWDED),
            }
        }
    }
}

/// Takes a stack with at least `bytes` of address space, guard and annex included, within the limits
/// [`MIN_SIZE`](super::MIN_SIZE) and [`MAX_SIZE`](super::MAX_SIZE).
///
/// # Errors
/// `ENOMEM` when no more can be mapped.
pub fn acquire_sized(bytes: usize) -> io::Result<PooledStack> {
    take(Class::for_size(bytes))
}

#[inline]
fn take(class: Class) -> io::Result<PooledStack> {
    // The pool of a thread that is ending is gone; its last stacks come straight from a shelf of their own.
    let slot = POOL
        .try_with(|pool| pool.shelves.borrow_mut()[class.index()].take(class))
        .unwrap_or_else(|_| {
            let mut shelf = Shelf::new();
            let slot = shelf.take(class);
            shelf.free.drain(..).for_each(abandon);
            slot
        })?;
    Ok(PooledStack(slot))
}

/// Gives a stack back, to the pool of the calling thread. The same as dropping it.
#[inline]
pub fn release(stack: PooledStack) {
    drop(stack);
}

#[inline]
pub(super) fn give_back(slot: Slot) {
    if slot.is_checked() {
        check_guard(slot);
    }
    // SAFETY: the stack is free, and the shared page was touched by the frames that were on it, or reads
    // as zeros.
    let deep = unsafe { touched(slot.top_page()) || touched(slot.top_page() + PAGE - LOOK) };
    let deep = deep && give_up_depths(slot);
    let put = POOL.try_with(|pool| {
        pool.deep.set(pool.deep.get() + u64::from(deep));
        pool.shelves.borrow_mut()[slot.class().index()].put(slot);
    });
    if put.is_err() {
        abandon(slot);
    }
}

/// Bytes that one look at the stack reads.
const LOOK: usize = 64;

/// Whether anything was written to the [`LOOK`] bytes at `addr`.
///
/// # Safety
/// They are mapped memory of a free stack, and `addr` is a multiple of 8.
#[inline]
unsafe fn touched(addr: usize) -> bool {
    let words = addr as *const u64;
    let mut any = 0;
    for i in 0..LOOK / 8 {
        // SAFETY: the caller's promise. Volatile, as the compiler knows nothing of this memory.
        any |= unsafe { words.add(i).read_volatile() };
    }
    any != 0
}

/// Looks how far a stack that left its shared page went; if far, gives the pages back. Memory that was
/// never written reads as zeros, so no mark has to be set beforehand, which would touch its page.
#[cold]
fn give_up_depths(slot: Slot) -> bool {
    let top = slot.top_page();
    for line in [top, top + PAGE - LOOK] {
        // SAFETY: our own free stack. Zeroed, so that the next use is judged by itself.
        unsafe { std::ptr::write_bytes(line as *mut u8, 0, LOOK) };
    }
    let mut areas = [(0, 0); 2];
    let written = |page: usize| {
        // Several looks, as a frame may step over one.
        let within = page >= slot.limit() && page + PAGE <= slot.end();
        // SAFETY: within the slot, above its guard.
        within && (0..4).any(|quarter| unsafe { touched(page + quarter * PAGE / 4) })
    };
    if MARKS_BELOW.iter().all(|m| written(top.saturating_sub(*m))) {
        areas[0] = (slot.limit(), top - KEEP_BELOW - slot.limit());
    }
    if MARKS_ABOVE.iter().all(|m| written(top + m)) {
        areas[1] = (top + KEEP_ABOVE, slot.end() - top - KEEP_ABOVE);
    }
    let deep = areas.iter().any(|a| a.1 != 0);
    if deep {
        // SAFETY: parts of a free stack.
        unsafe { guard::forget(areas.into_iter().filter(|a| a.1 != 0)) };
    }
    deep
}

/// Ends the process if a stack without a real guard has grown into its guard area.
#[cold]
fn check_guard(slot: Slot) {
    // SAFETY: the guard area of a `Checked` slot is ordinary memory of the slab.
    if unsafe { touched(slot.limit() - LOOK) || touched(slot.limit() - PAGE) } {
        overflow::die_of_overflow(slot.class().size());
    }
}

/// Gives memory of stacks that have not been needed lately back to the kernel, in a bounded step (tens of
/// microseconds). Meant to be called before an idle wait; costs next to nothing when there is nothing to do.
///
/// Returns whether another call, some tenths of a second later, would find more to do.
pub fn trim_idle() -> bool {
    let step = |pool: &Pool| {
        let mut shelves = pool.shelves.borrow_mut();
        if !shelves.iter().any(Shelf::is_untidy) {
            return false;
        }
        let now = now();
        let mut more = false;
        for shelf in shelves.iter_mut() {
            let before = shelf.cold;
            more |= shelf.trim(now);
            pool.trimmed
                .set(pool.trimmed.get() + shelf.cold.saturating_sub(before) as u64);
        }
        more
    };
    POOL.try_with(step).unwrap_or(false)
}

fn now() -> u64 {
    #[cfg(test)]
    if let Some(t) = tests::CLOCK.get() {
        return t;
    }
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: an out pointer that is valid for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// What the stacks of this thread, and the slabs of all threads, amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Stacks that this thread has taken and not given back.
    pub live: usize,
    /// Free ones whose top pages are in memory.
    pub warm: usize,
    /// Free ones that hold no memory.
    pub cold: usize,
    /// Stacks that came back deeply used and gave up pages at once, ever.
    pub deep: u64,
    /// Stacks that [`trim_idle`] emptied, ever.
    pub trimmed: u64,
    /// Slabs mapped by all threads.
    pub slabs: usize,
    /// Their address space in bytes.
    pub mapped: usize,
}

/// Counts of this thread's pool and of all slabs.
pub fn stats() -> Stats {
    let mut s = Stats::default();
    (s.slabs, s.mapped) = slab::mapped();
    let _ = POOL.try_with(|pool| {
        for shelf in pool.shelves.borrow().iter() {
            s.live += usize::try_from(shelf.live).unwrap_or(0);
            s.cold += shelf.cold;
            s.warm += shelf.warm();
        }
        s.deep = pool.deep.get();
        s.trimmed = pool.trimmed.get();
    });
    s
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
