//! Sizes of stacks: the default (`GEVENT_STACK_SIZE`), its limits, and the size classes of the pool.

use std::sync::atomic::{AtomicU8, Ordering};

/// Address space of a stack when nothing is configured: as much as the stack of a main thread has, so that
/// recursion through C ends as it does there.
pub const DEFAULT_SIZE: usize = 8 << 20;
/// The same for the stacks beyond the [`MANY`] that a thread has in use, and for all where address space is
/// limited. Two of them share a page table, which is a quarter of what a parked fiber needs.
pub const CROWDED_SIZE: usize = 1 << 20;
/// How many stacks of [`DEFAULT_SIZE`] a thread has in use at a time.
pub const MANY: usize = 8192;
/// The smallest stack.
pub const MIN_SIZE: usize = 128 << 10;
/// The largest stack.
pub const MAX_SIZE: usize = 64 << 20;

/// Smallest unit of protection, and of memory that the kernel gives and takes.
pub(super) const PAGE: usize = 4096;

const MIN_SHIFT: u32 = MIN_SIZE.trailing_zeros();
/// How many size classes there are: the powers of two from [`MIN_SIZE`] to [`MAX_SIZE`].
pub(super) const CLASSES: usize = (MAX_SIZE.trailing_zeros() - MIN_SHIFT) as usize + 1;

/// A size class of stacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Class(u8);

impl Class {
    /// The class whose stacks have at least `bytes`, within the limits.
    pub(super) fn for_size(bytes: usize) -> Self {
        let size = bytes.clamp(MIN_SIZE, MAX_SIZE).next_power_of_two();
        Class((size.trailing_zeros() - MIN_SHIFT) as u8)
    }

    #[inline]
    pub(super) fn from_index(index: usize) -> Self {
        debug_assert!(index < CLASSES);
        Class(index as u8)
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }

    /// Bytes of a slot.
    #[inline]
    pub(super) fn size(self) -> usize {
        MIN_SIZE << self.0
    }

    /// Bytes of the guard. 64 KiB rather than a page, because C code built without probes of the stack
    /// has frames that step over a page; small stacks cannot spare as much.
    #[inline]
    pub(super) fn guard(self) -> usize {
        (self.size() / 8).min(64 << 10)
    }

    /// Bytes above the page boundary at which the annex's page starts.
    #[inline]
    pub(super) fn annex(self) -> usize {
        self.guard()
    }

    /// Slots in one slab: 64, or as many as fit into 256 MiB of address space.
    pub(super) fn slots(self) -> usize {
        (4 * MAX_SIZE / self.size()).min(64)
    }

    /// The class of [`CROWDED_SIZE`].
    pub(super) const CROWDED: Class = Class((CROWDED_SIZE.trailing_zeros() - MIN_SHIFT) as u8);
}

/// Which stacks a thread takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// Those of this class, as somebody said so or address space is limited.
    Only(Class),
    /// Those of this class, and [`Class::CROWDED`] where there are many or no more.
    First(Class),
}

/// Not read yet from the environment.
const UNSET: u8 = u8::MAX;
/// Nothing is configured: [`Choice::First`].
const UNCONFIGURED: u8 = u8::MAX - 1;
static DEFAULT: AtomicU8 = AtomicU8::new(UNSET);

/// Which stacks are taken from now on.
#[inline]
pub(super) fn choice() -> Choice {
    match DEFAULT.load(Ordering::Relaxed) {
        UNSET => from_environment(),
        set => choice_of(set),
    }
}

#[inline]
fn choice_of(set: u8) -> Choice {
    match set {
        UNCONFIGURED => Choice::First(Class::for_size(DEFAULT_SIZE)),
        class => Choice::Only(Class(class)),
    }
}

#[cold]
fn from_environment() -> Choice {
    let configured = std::env::var("GEVENT_STACK_SIZE").ok();
    let first = match configured.and_then(|s| parse_size(&s)) {
        Some(size) => Class::for_size(size).0,
        None if address_space_is_limited() => Class::CROWDED.0,
        None => UNCONFIGURED,
    };
    // A size set meanwhile by the program goes before the environment's.
    match DEFAULT.compare_exchange(UNSET, first, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => choice_of(first),
        Err(set) => choice_of(set),
    }
}

/// Whether address space that is never touched is taken from a budget: by a limit of the process, or by the
/// kernel's strict accounting.
fn address_space_is_limited() -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: an out pointer that is valid for the call.
    unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) };
    let strict = || {
        let mode = std::fs::read("/proc/sys/vm/overcommit_memory");
        mode.is_ok_and(|mode| mode.first() == Some(&b'2'))
    };
    limit.rlim_cur != libc::RLIM_INFINITY || strict()
}

/// What is wrong with `GEVENT_STACK_SIZE`, if anything is: a sentence that names it, its value and what it
/// takes. Without this check a value that cannot be read counts as none.
///
/// # Errors
/// That sentence.
pub fn check_environment() -> Result<(), String> {
    let Some(value) = std::env::var_os("GEVENT_STACK_SIZE") else {
        return Ok(());
    };
    let size = value.to_str().map(|text| (text, parse_size(text)));
    match size {
        Some((text, _)) if text.trim().is_empty() => Ok(()),
        Some((_, Some(size))) if (MIN_SIZE..=MAX_SIZE).contains(&size) => Ok(()),
        _ => Err(format!(
            "GEVENT_STACK_SIZE={value:?}: it takes bytes, or a number with the suffix k or m, from {}k to {}m",
            MIN_SIZE >> 10,
            MAX_SIZE >> 20
        )),
    }
}

/// Bytes of address space of a stack from [`acquire`](super::acquire): `GEVENT_STACK_SIZE`, or what
/// [`set_default_size`] said last. Without either, stacks beyond the first [`MANY`] are smaller.
pub fn default_size() -> usize {
    match choice() {
        Choice::Only(class) | Choice::First(class) => class.size(),
    }
}

/// Sets the size of stacks that are acquired from now on, by all threads. `bytes` is brought into
/// [`MIN_SIZE`]..=[`MAX_SIZE`] and rounded up to a power of two, which is returned.
pub fn set_default_size(bytes: usize) -> usize {
    let class = Class::for_size(bytes);
    DEFAULT.store(class.0, Ordering::Relaxed);
    class.size()
}

/// Reads a size in bytes with an optional suffix `k` or `m` (powers of 1024, either case); `None` if the
/// text is not one. The limits are not applied.
pub fn parse_size(text: &str) -> Option<usize> {
    let text = text.trim();
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1 << 10),
        b'm' | b'M' => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let digits = digits.trim_end();
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_suffix() {
        assert_eq!(parse_size("262144"), Some(262_144));
        assert_eq!(parse_size(" 256k "), Some(256 << 10));
        assert_eq!(parse_size("2M"), Some(2 << 20));
        for bad in [
            "",
            "k",
            "-1",
            "+5",
            "1.5m",
            "12q",
            "0x10",
            "999999999999999999999",
        ] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn classes_round_up_and_keep_within_the_limits() {
        assert_eq!(Class::for_size(0).size(), MIN_SIZE);
        assert_eq!(Class::for_size(DEFAULT_SIZE).size(), DEFAULT_SIZE);
        assert_eq!(Class::for_size(DEFAULT_SIZE + 1).size(), 2 * DEFAULT_SIZE);
        assert_eq!(Class::for_size(usize::MAX).size(), MAX_SIZE);
        assert_eq!(Class::for_size(MAX_SIZE).index(), CLASSES - 1);
        for i in 0..CLASSES {
            let c = Class::from_index(i);
            assert!(
                c.size() - c.guard() - c.annex() >= c.size() / 2,
                "{c:?} is mostly C stack"
            );
            assert!((1..=64).contains(&c.slots()));
        }
    }
}
