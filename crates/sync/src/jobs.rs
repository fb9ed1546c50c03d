//! [`Jobs`]: work on its way to threads that do nothing else.

use crate::parker::Parker;
use crate::state::Ledger;
use std::collections::VecDeque;
use std::sync::Arc;

/// Items in the order of coming, and the threads that wait for one. It takes no lock and wakes nobody: it
/// belongs into what guards it, and its owner ends the [`Parker`] that [`put`](Self::put) names.
pub struct Jobs<T> {
    items: VecDeque<T>,
    /// The one that came last is woken first, so that threads there is no work for can expire.
    idle: Vec<Arc<Parker>>,
    ledger: Ledger,
}

impl<T> Default for Jobs<T> {
    fn default() -> Self {
        Jobs {
            items: VecDeque::new(),
            idle: Vec::new(),
            ledger: Ledger::new(usize::MAX),
        }
    }
}

impl<T> Jobs<T> {
    /// Puts an item, and names the thread that is to be woken for it.
    pub fn put(&mut self, item: T) -> Option<Arc<Parker>> {
        self.items.push_back(item);
        self.ledger.begin();
        self.idle.pop()
    }

    /// The next item.
    pub fn take(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// A thread is going to sleep until there is one.
    pub fn enter(&mut self, parker: &Arc<Parker>) {
        parker.reset();
        self.idle.push(parker.clone());
    }

    /// A thread was not woken and waits no more.
    pub fn leave(&mut self, parker: &Arc<Parker>) {
        self.idle.retain(|p| !Arc::ptr_eq(p, parker));
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }

    /// Takes all items.
    pub fn take_all(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.items)
    }

    /// How many items were put for which nobody has said [`done`](Self::done).
    pub fn unfinished(&self) -> usize {
        self.ledger.unfinished()
    }

    /// The work for an item is done. `false`: more often than items were put.
    pub fn done(&mut self) -> bool {
        self.ledger.done().is_some()
    }

    /// Gives it up: this is the child of a fork, which has none of the threads. Returns what is left.
    pub fn abandon(&mut self) -> VecDeque<T> {
        self.ledger.close();
        self.ledger.set_unfinished(0);
        self.idle.clear();
        self.take_all()
    }

    /// Whether it was given up.
    pub fn is_abandoned(&self) -> bool {
        self.ledger.is_closed()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_came_last_is_woken_first() {
        let mut jobs = Jobs::default();
        let parkers = [Parker::new(), Parker::new(), Parker::new()];
        parkers.iter().for_each(|p| jobs.enter(p));
        jobs.leave(&parkers[1]);
        let woken = [1, 2, 3].map(|n| jobs.put(n));
        assert!(Arc::ptr_eq(woken[0].as_ref().unwrap(), &parkers[2]));
        assert!(Arc::ptr_eq(woken[1].as_ref().unwrap(), &parkers[0]));
        assert!(woken[2].is_none());
        assert_eq!(
            (jobs.take(), jobs.len(), jobs.unfinished()),
            (Some(1), 2, 3)
        );
        assert!(jobs.done() && jobs.done() && jobs.done() && !jobs.done());
    }

    #[test]
    fn the_child_of_a_fork_gives_it_up() {
        let mut jobs = Jobs::default();
        jobs.put(1);
        jobs.put(2);
        jobs.enter(&Parker::new());
        assert_eq!(jobs.iter().sum::<i32>(), 3);
        assert_eq!(jobs.abandon(), [1, 2]);
        assert!(jobs.is_abandoned() && jobs.is_empty() && jobs.unfinished() == 0);
        assert!(jobs.put(3).is_none() && jobs.take() == Some(3));
    }
}
