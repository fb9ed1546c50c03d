//! A signal mask around a wait, for backends whose system call takes none.

use std::mem::MaybeUninit;
use std::ptr;

/// A signal mask of this thread, in force until it is dropped.
///
/// A signal whose handler runs after the mask was set and before the wait begins ends that wait only if it wakes
/// the loop, as the reactor's own handlers do. What was pending before has [interrupted](Self::has_interrupted)
/// it.
pub struct MaskGuard {
    old: libc::sigset_t,
    interrupted: bool,
}

impl MaskGuard {
    /// Puts `mask` in force.
    pub fn new(mask: &libc::sigset_t) -> Self {
        let (mut old, mut pending) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: valid sets, filled by calls that cannot fail.
        unsafe {
            libc::sigpending(pending.as_mut_ptr());
            let pending = pending.assume_init();
            let interrupted = (1..32)
                .any(|n| libc::sigismember(&pending, n) == 1 && libc::sigismember(mask, n) == 0);
            libc::pthread_sigmask(libc::SIG_SETMASK, mask, old.as_mut_ptr());
            MaskGuard {
                old: old.assume_init(),
                interrupted,
            }
        }
    }

    /// Whether a signal that the mask lets through was pending: then the wait is over before it begins.
    pub fn has_interrupted(&self) -> bool {
        self.interrupted
    }
}

impl Drop for MaskGuard {
    fn drop(&mut self) {
        // SAFETY: a set that this thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.old, ptr::null_mut()) };
    }
}
