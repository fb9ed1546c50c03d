//! [`Flag`]: what an event knows.

use crate::waiters::AtomicBool;
use std::sync::atomic::Ordering;

/// Whether something has happened. Written by whoever holds the lock of the waiters; read by anybody.
pub struct Flag(AtomicBool);

impl Flag {
    /// Raised or not.
    pub fn new(raised: bool) -> Self {
        Flag(AtomicBool::new(raised))
    }

    /// Whether it is raised. What was written before it was raised is seen.
    #[inline]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Raises it.
    #[inline]
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Lowers it.
    #[inline]
    pub fn lower(&self) {
        self.0.store(false, Ordering::Release);
    }
}
