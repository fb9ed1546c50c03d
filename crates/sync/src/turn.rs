//! [`Turn`]: for what runs foreign code in the middle, one after the other.

use crate::parker::Parker;
use crate::state::Ownership;
use gevent_hub_core::reactor::Wake;
use std::sync::Arc;

/// Whose turn it is. `W` says who: a stretch of a native thread, during which nothing else of that thread
/// runs. It may begin again in the middle, because the foreign code may come back. As all state here it is
/// guarded by what guards the object, which foreign code may let go.
pub struct Turn<W> {
    held: Ownership<W>,
    waiting: Vec<Arc<Parker>>,
}

impl<W> Default for Turn<W> {
    fn default() -> Self {
        Turn {
            held: Ownership::default(),
            waiting: Vec::new(),
        }
    }
}

impl<W: PartialEq> Turn<W> {
    /// Begins the turn of `who`, or takes it over from somebody of whom `lasts` says that their stretch is
    /// over: the thread has ended, or runs something else.
    ///
    /// # Errors
    /// Another one has its turn: sleep on this for a while, since a stretch may be over without a word;
    /// [leave](Self::leave), and try again.
    #[inline]
    pub fn begin(&mut self, who: W, lasts: impl FnOnce(&W) -> bool) -> Result<(), Arc<Parker>> {
        if self.held.again(&who) {
            return Ok(());
        }
        if !self.held.owner().is_some_and(lasts) {
            let _ = self.held.put(Some(who), 1);
            return Ok(());
        }
        let parker = Parker::new();
        self.waiting.push(parker.clone());
        Err(parker)
    }

    /// Somebody does not sleep on this any more.
    pub fn leave(&mut self, parker: &Arc<Parker>) {
        self.waiting.retain(|p| !Arc::ptr_eq(p, parker));
    }

    /// Ends it; those who wait are woken when it was begun as often. Nothing happens if `who` has no turn, or
    /// not any more.
    #[inline]
    pub fn end(&mut self, who: &W) {
        if matches!(self.held.leave(who), Ok(Some(_))) && !self.waiting.is_empty() {
            self.waiting.drain(..).for_each(|p| p.end(Wake::Event));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Mutex;

    const LASTS: fn(&i32) -> bool = |_| true;

    #[test]
    fn a_thread_begins_again_and_others_wait_for_its_end() {
        let mut turn = Turn::default();
        turn.end(&1);
        assert!(turn.begin(1, LASTS).is_ok() && turn.begin(1, LASTS).is_ok());
        let parker = turn.begin(2, LASTS).unwrap_err();
        let late = turn.begin(3, LASTS).unwrap_err();
        turn.leave(&late);
        turn.end(&2);
        turn.end(&1);
        assert_eq!(parker.ended(), None);
        turn.end(&1);
        assert_eq!((parker.ended(), late.ended()), (Some(Wake::Ready), None));
        assert!(turn.begin(2, LASTS).is_ok() && turn.begin(1, LASTS).is_err());
    }

    #[test]
    fn a_turn_whose_stretch_is_over_is_taken_over() {
        let mut turn = Turn::default();
        assert!(turn.begin(1, LASTS).is_ok() && turn.begin(1, LASTS).is_ok());
        let parker = turn.begin(2, |who| *who == 1).unwrap_err();
        assert!(turn.begin(3, |who| *who != 1).is_ok());
        turn.end(&1);
        turn.end(&1);
        assert!(turn.begin(2, |who| *who == 3).is_err(), "not for 1 to end");
        turn.end(&3);
        assert_eq!(parker.ended(), Some(Wake::Ready));
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
                            let begun = shared.lock().unwrap().0.begin(thread, LASTS);
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
                        shared.0.end(&thread);
                        *count.lock().unwrap() += 1;
                    }
                });
            }
        });
        assert_eq!(*count.lock().unwrap(), 800);
    }
}
