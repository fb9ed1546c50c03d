//! [`Turn`]: for what runs foreign code in the middle, one native thread after the other.

use crate::parker::Parker;
use crate::state::Ownership;
use gevent_hub_core::reactor::Wake;
use std::sync::Arc;

/// Whose turn it is. A thread may begin again in the middle, because the foreign code may come back. As all
/// state here it is guarded by what guards the object, which foreign code may let go.
#[derive(Default)]
pub struct Turn {
    held: Ownership<usize>,
    waiting: Vec<Arc<Parker>>,
}

impl Turn {
    /// Begins the turn of `thread`, a number that no other living one has.
    ///
    /// # Errors
    /// Another thread has its turn: sleep on this, and try again.
    #[inline]
    pub fn begin(&mut self, thread: usize) -> Result<(), Arc<Parker>> {
        if self.held.again(&thread) {
            return Ok(());
        }
        if self.held.owner().is_none() {
            let _ = self.held.put(Some(thread), 1);
            return Ok(());
        }
        let parker = Parker::new();
        self.waiting.push(parker.clone());
        Err(parker)
    }

    /// Ends it; those who wait are woken when it was begun as often. Nothing happens if `thread` has no turn.
    #[inline]
    pub fn end(&mut self, thread: usize) {
        if matches!(self.held.leave(&thread), Ok(Some(_))) && !self.waiting.is_empty() {
            self.waiting.drain(..).for_each(|p| p.end(Wake::Event));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_thread_begins_again_and_others_wait_for_its_end() {
        let mut turn = Turn::default();
        turn.end(1);
        assert!(turn.begin(1).is_ok() && turn.begin(1).is_ok());
        let parker = turn.begin(2).unwrap_err();
        turn.end(2);
        turn.end(1);
        assert_eq!(parker.ended(), None);
        turn.end(1);
        assert_eq!(parker.ended(), Some(Wake::Ready));
        assert!(turn.begin(2).is_ok() && turn.begin(1).is_err());
    }

    #[test]
    fn threads_take_turns() {
        let shared = Mutex::new((Turn::default(), None));
        let count = Mutex::new(0);
        std::thread::scope(|s| {
            for thread in 1..=4 {
                let (shared, count) = (&shared, &count);
                s.spawn(move || {
                    for _ in 0..200 {
                        loop {
                            let begun = shared.lock().unwrap().0.begin(thread);
                            match begun {
                                Ok(()) => break,
                                Err(parker) => parker.sleep(None),
                            }
                        }
                        let before = shared.lock().unwrap().1.replace(thread);
                        assert_eq!(before, None);
                        std::thread::yield_now();
                        let mut shared = shared.lock().unwrap();
                        assert_eq!(shared.1.take(), Some(thread));
                        shared.0.end(thread);
                        *count.lock().unwrap() += 1;
                    }
                });
            }
        });
        assert_eq!(*count.lock().unwrap(), 800);
    }
}
