//! [`Permits`]: what a semaphore knows.

use std::fmt;

/// How many permits are free, and how many there may be.
///
/// The number may be below zero, after an embedder said so: then nothing is free until as many more were
/// released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permits {
    free: isize,
    most: isize,
    bounded: bool,
}

/// A release without an acquire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleasedTooOften;

impl fmt::Display for ReleasedTooOften {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the semaphore was released more often than it was acquired")
    }
}

impl std::error::Error for ReleasedTooOften {}

impl Permits {
    /// So many, all free. If `bounded`, there are never more.
    pub const fn new(free: isize, bounded: bool) -> Self {
        Permits {
            free,
            most: free,
            bounded,
        }
    }

    /// How many are free.
    #[inline]
    pub const fn free(&self) -> isize {
        self.free
    }

    /// Says how many are free.
    pub const fn set_free(&mut self, free: isize) {
        self.free = free;
    }

    /// How many there were at the beginning; of a bounded number, how many there may be.
    pub const fn most(&self) -> isize {
        self.most
    }

    /// Says how many there may be.
    pub const fn set_most(&mut self, most: isize) {
        self.most = most;
    }

    /// Whether an acquire would not wait.
    #[inline]
    pub const fn is_free(&self) -> bool {
        self.free > 0
    }

    /// Whether a bounded number is complete: nobody has one.
    #[inline]
    pub const fn is_whole(&self) -> bool {
        self.free == self.most
    }

    /// Takes one, if one is free.
    #[inline]
    pub const fn take(&mut self) -> bool {
        let free = self.free > 0;
        if free {
            self.free -= 1;
        }
        free
    }

    /// One is on its way to a waiter, who need not take it any more.
    #[inline]
    pub const fn give(&mut self) {
        self.free -= 1;
    }

    /// One more is free, whatever the bound says. The new number.
    #[inline]
    pub const fn add(&mut self) -> isize {
        self.free = self.free.saturating_add(1);
        self.free
    }

    /// One is given back. The new number.
    ///
    /// # Errors
    /// [`ReleasedTooOften`]: nobody has one of a bounded number, or there are `isize::MAX`. Nothing has
    /// changed.
    #[inline]
    pub const fn release(&mut self) -> Result<isize, ReleasedTooOften> {
        if (self.bounded && self.free >= self.most) || self.free == isize::MAX {
            return Err(ReleasedTooOften);
        }
        Ok(self.add())
    }

    /// Nobody has one any more, as in the child of a fork. Only a bounded number knows how many that are.
    pub const fn reset(&mut self) {
        if self.bounded {
            self.free = self.most;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let mut p = Permits::new(2, false);
        assert!(p.take() && p.take() && !p.take() && !p.is_free());
        assert_eq!(p.release(), Ok(1));
        p.give();
        assert_eq!(p.free(), 0);
        // Without a bound there may come to be more than at the beginning.
        assert_eq!((p.add(), p.add(), p.add()), (1, 2, 3));
        assert_eq!(p.release(), Ok(4));
    }

    #[test]
    fn a_bound_holds_against_releases_only() {
        let mut p = Permits::new(1, true);
        assert_eq!(p.release(), Err(ReleasedTooOften));
        assert!(p.is_whole() && p.take() && !p.is_whole());
        assert_eq!(p.release(), Ok(1));
        assert_eq!(p.add(), 2);
        p.set_most(3);
        assert_eq!((p.release(), p.release()), (Ok(3), Err(ReleasedTooOften)));
        p.set_free(-1);
        assert!(!p.is_free() && !p.take());
        p.reset();
        assert_eq!(p.free(), 3);
    }

    #[test]
    fn the_number_does_not_run_over() {
        let mut p = Permits::new(isize::MAX, false);
        assert_eq!(p.release(), Err(ReleasedTooOften));
        assert_eq!(p.add(), isize::MAX);
        p.reset();
        assert_eq!(p.free(), isize::MAX);
    }
}
