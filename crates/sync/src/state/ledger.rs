//! [`Ledger`]: what a queue knows besides its items.

/// How many items a queue takes, whether it takes any, and how many are not dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    /// `usize::MAX` for no limit.
    capacity: usize,
    unfinished: usize,
    closed: bool,
}

impl Ledger {
    /// Of at most so many items; `usize::MAX` for no limit.
    pub const fn new(capacity: usize) -> Self {
        Ledger {
            capacity,
            unfinished: 0,
            closed: false,
        }
    }

    /// How many items it takes; `usize::MAX` for no limit.
    #[inline]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Says how many items it takes.
    pub const fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// Whether there is a limit.
    #[inline]
    pub const fn is_bounded(&self) -> bool {
        self.capacity != usize::MAX
    }

    /// Whether another item fits to so many.
    #[inline]
    pub const fn has_room(&self, items: usize) -> bool {
        items < self.capacity
    }

    /// Whether it takes no items any more.
    #[inline]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// It takes none any more. `false`: it was closed already.
    pub const fn close(&mut self) -> bool {
        let open = !self.closed;
        self.closed = true;
        open
    }

    /// It takes items again.
    pub const fn open(&mut self) {
        self.closed = false;
    }

    /// How many items were put for which nobody has said [`done`](Self::done).
    #[inline]
    pub const fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Says how many there are.
    pub const fn set_unfinished(&mut self, unfinished: usize) {
        self.unfinished = unfinished;
    }

    /// An item was put, with which somebody has to deal.
    #[inline]
    pub const fn begin(&mut self) {
        self.unfinished += 1;
    }

    /// An item is dealt with. `Some(true)`: it was the last. `None`: there was none.
    #[inline]
    pub const fn done(&mut self) -> Option<bool> {
        match self.unfinished.checked_sub(1) {
            None => None,
            Some(left) => {
                self.unfinished = left;
                Some(left == 0)
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_done_as_often_as_begun() {
        let mut l = Ledger::new(2);
        assert_eq!(l.done(), None);
        l.begin();
        l.begin();
        assert_eq!(
            (l.done(), l.done(), l.done()),
            (Some(false), Some(true), None)
        );
        l.set_unfinished(1);
        assert_eq!((l.unfinished(), l.done()), (1, Some(true)));
    }

    #[test]
    fn room_and_end() {
        let mut l = Ledger::new(1);
        assert!(l.is_bounded() && l.has_room(0) && !l.has_room(1));
        l.set_capacity(usize::MAX);
        assert!(!l.is_bounded() && l.has_room(1 << 40));
        assert!(l.close() && !l.close() && l.is_closed());
        l.open();
        assert!(!l.is_closed() && l.close());
        assert!(!Ledger::new(0).has_room(0));
    }
}
