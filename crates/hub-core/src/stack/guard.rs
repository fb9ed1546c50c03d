//! Making the guards below stacks, by the best means that the kernel has.
//!
//! `MADV_GUARD_INSTALL` (Linux 6.13) marks page-table entries, so a guard costs no map and 200,000 stacks
//! live in a few dozen of them. `mprotect` splits the mapping: two maps a stack, of which the kernel allows
//! 65,530 by default. Where only the latter exists, slabs beyond half of that limit get no guard; their
//! guard areas are ordinary memory then, and the pool looks at them when a stack comes back.

use super::config::Class;
use std::ffi::c_void;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// How the stacks of a slab are guarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum GuardKind {
    /// By markers in the page tables.
    Marker = 1,
    /// By pages without access rights.
    Protected = 2,
    /// Not by the processor: too many maps are in use already.
    Checked = 3,
}

#[cfg(target_os = "linux")]
const MADV_GUARD_INSTALL: i32 = 102;
/// `PIDFD_SELF_THREAD` of Linux 6.14.
#[cfg(target_os = "linux")]
const PIDFD_SELF: i32 = -10_000;

/// What the kernel was found to refuse; bits.
static REFUSED: AtomicU8 = AtomicU8::new(0);
const NO_MARKERS: u8 = 1;
#[cfg(target_os = "linux")]
const NO_VECTOR: u8 = 2;

/// Maps that mprotected guards take up.
static MAPS: AtomicUsize = AtomicUsize::new(0);

fn refused(bit: u8) -> bool {
    REFUSED.load(Ordering::Relaxed) & bit != 0
}

/// Guards each of the `slots` slots of a fresh slab at `lo`.
///
/// # Safety
/// The slab is mapped, private and anonymous, and nothing lies in its guard areas.
pub(super) unsafe fn install(lo: usize, class: Class, slots: usize) -> io::Result<GuardKind> {
    let best = best();
    // SAFETY: the caller's promise, here and below.
    if best == GuardKind::Marker && unsafe { install_markers(lo, class, slots) } {
        return Ok(GuardKind::Marker);
    }
    if best == GuardKind::Checked || !reserve_maps(2 * slots) {
        return Ok(GuardKind::Checked);
    }
    for i in 0..slots {
        let guard = (lo + i * class.size()) as *mut c_void;
        // SAFETY: as above.
        if unsafe { libc::mprotect(guard, class.guard(), libc::PROT_NONE) } != 0 {
            let e = io::Error::last_os_error();
            if e.raw_os_error() != Some(libc::ENOMEM) {
                return Err(e);
            }
            // Another user of maps was there first: make this slab uniform again, and do without.
            // SAFETY: as above; it gives back the rights that the loop took.
            unsafe {
                libc::mprotect(
                    lo as *mut c_void,
                    slots * class.size(),
                    libc::PROT_READ | libc::PROT_WRITE,
                )
            };
            MAPS.fetch_sub(2 * slots, Ordering::Relaxed);
            return Ok(GuardKind::Checked);
        }
    }
    Ok(GuardKind::Protected)
}

/// Forgets what [`install`] counted for a slab that is unmapped now.
pub(super) fn removed(kind: GuardKind, slots: usize) {
    if kind == GuardKind::Protected {
        MAPS.fetch_sub(2 * slots, Ordering::Relaxed);
    }
}

fn best() -> GuardKind {
    #[cfg(test)]
    if let Some(forced) = FORCED.get() {
        return forced;
    }
    if cfg!(target_os = "linux") && !refused(NO_MARKERS) {
        GuardKind::Marker
    } else {
        GuardKind::Protected
    }
}

fn reserve_maps(n: usize) -> bool {
    let limit = map_limit();
    MAPS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        (used + n <= limit).then_some(used + n)
    })
    .is_ok()
}

/// How many maps guards may use: half of what the kernel allows the process.
fn map_limit() -> usize {
    #[cfg(test)]
    if let Some(limit) = FORCED_LIMIT.get() {
        return limit;
    }
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let read = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
        read.and_then(|s| s.trim().parse::<usize>().ok())
            .unwrap_or(65_530)
            / 2
    })
}

/// # Safety
/// The slots lie in one mapping of ours, and nothing uses their guard areas.
#[cfg(target_os = "linux")]
unsafe fn install_markers(lo: usize, class: Class, slots: usize) -> bool {
    let areas = (0..slots).map(|i| (lo + i * class.size(), class.guard()));
    // SAFETY: the caller's promise.
    let done = unsafe { advise_each(areas, MADV_GUARD_INSTALL) };
    if let Err(e) = &done
        && e.raw_os_error() == Some(libc::EINVAL)
    {
        REFUSED.fetch_or(NO_MARKERS, Ordering::Relaxed);
    }
    done.is_ok()
}

/// # Safety
/// The slots lie in one mapping of ours, and nothing uses their guard areas.
#[cfg(not(target_os = "linux"))]
unsafe fn install_markers(_: usize, _: Class, _: usize) -> bool {
    false
}

/// Gives the memory of each area (address, bytes) back to the kernel; it reads as zeros afterwards.
/// Guards stay.
///
/// # Safety
/// The areas are private anonymous memory whose contents nobody needs.
pub(super) unsafe fn forget(areas: impl Iterator<Item = (usize, usize)>) {
    // A refusal leaves the memory as it is, which costs memory and nothing else.
    // SAFETY: the caller's promise.
    let _ = unsafe { advise_each(areas, libc::MADV_DONTNEED) };
}

/// The same advice for many areas, in as few calls as the kernel allows.
///
/// # Safety
/// The areas lie in mappings of ours, and nothing uses what the advice does away with.
unsafe fn advise_each(areas: impl Iterator<Item = (usize, usize)>, advice: i32) -> io::Result<()> {
    const BATCH: usize = 64;
    let mut batch = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; BATCH];
    let mut n = 0;
    for (addr, len) in areas {
        batch[n] = libc::iovec {
            iov_base: addr as *mut c_void,
            iov_len: len,
        };
        n += 1;
        if n == BATCH {
            // SAFETY: the caller's promise.
            unsafe { advise_batch(&batch, advice)? };
            n = 0;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { advise_batch(&batch[..n], advice) }
}

/// # Safety
/// As [`advise_each`].
unsafe fn advise_batch(batch: &[libc::iovec], advice: i32) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if batch.len() > 1 && !refused(NO_VECTOR) {
        let want: usize = batch.iter().map(|v| v.iov_len).sum();
        // SAFETY: the iovecs are valid for the call; the advice is sound by the caller's promise.
        let done = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                PIDFD_SELF,
                batch.as_ptr(),
                batch.len(),
                advice,
                0,
            )
        };
        if done == want as libc::c_long {
            return Ok(());
        }
        if done < 0 {
            // Kernels before 6.14 do not know the name, and filters refuse the call.
            REFUSED.fetch_or(NO_VECTOR, Ordering::Relaxed);
        }
        // Part of it was done; once more for each does no harm, and names the error.
    }
    for v in batch {
        // SAFETY: the caller's promise.
        if unsafe { libc::madvise(v.iov_base, v.iov_len, advice) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
thread_local! {
    /// Test switch: what slabs mapped by this thread get, whatever the kernel offers.
    pub(super) static FORCED: std::cell::Cell<Option<GuardKind>> = const { std::cell::Cell::new(None) };
    /// Test switch: the limit of maps as this thread sees it.
    pub(super) static FORCED_LIMIT: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
}
