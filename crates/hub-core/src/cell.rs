//! [`LocalCell`]: interior mutability for state of one thread that is touched in short, closed steps.

use std::cell::{Cell, UnsafeCell};

/// Holds a `T` that is reached only inside [`with`](LocalCell::with).
///
/// It is a `RefCell` without guards and without shared borrows: the access is a closure, so no borrow can
/// be carried across a callback by mistake, and the check is one flag. A nested access is a programming
/// error and panics; so is any access after a closure has panicked.
pub struct LocalCell<T> {
    busy: Cell<bool>,
    value: UnsafeCell<T>,
}

impl<T> LocalCell<T> {
    /// A cell that holds `value`.
    pub const fn new(value: T) -> Self {
        LocalCell {
            busy: Cell::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Runs `f` on the value. `f` must not lead back to the same cell.
    ///
    /// # Panics
    /// When it does.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        if self.busy.replace(true) {
            nested();
        }
        // SAFETY: `busy` was clear, so no other reference to the value is alive, and the type is not
        // `Sync`, so no other thread can make one.
        let result = f(unsafe { &mut *self.value.get() });
        self.busy.set(false);
        result
    }

    /// Takes the value out and leaves its default.
    pub fn take(&self) -> T
    where
        T: Default,
    {
        self.with(std::mem::take)
    }

    /// The value, when the cell is owned.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

#[cold]
#[inline(never)]
fn nested() -> ! {
    panic!("a LocalCell was used inside its own access");
}

impl<T: Default> Default for LocalCell<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_follow_each_other_and_do_not_nest() {
        let c = LocalCell::new(1);
        c.with(|v| *v += 1);
        assert_eq!(c.with(|v| *v), 2);
        let r =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| c.with(|_| c.with(|v| *v))));
        assert!(r.is_err());
    }

    #[test]
    fn take_leaves_the_default() {
        let c = LocalCell::new(vec![1]);
        assert_eq!(c.take(), [1]);
        assert!(c.into_inner().is_empty());
    }
}
