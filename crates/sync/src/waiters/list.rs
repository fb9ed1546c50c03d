//! [`WaitList`]: who waits, first come first, and what was granted to whom.

use super::Target;

/// A place in a [`WaitList`], held by whoever waits, and given back by [`WaitList::finish`].
#[must_use = "a place that is not given back stays taken"]
#[derive(Debug)]
pub struct Place(u32);

const NONE: u32 = u32::MAX;
/// Free places kept when nobody waits.
const KEEP: usize = 32;

enum Stage<W, G> {
    Free,
    Waiting(Target, W),
    Granted(G),
}

struct Node<W, G> {
    stage: Stage<W, G>,
    /// Neighbours in the line while it waits; `next` is the next free place while it is free.
    prev: u32,
    next: u32,
}

/// Those who wait for something, in the order in which they came. It belongs into the mutex that guards
/// the thing itself: then what the list says is the truth, whatever wakes are under way.
///
/// Each waiter brings a `W` (an item to put, or nothing) and is granted a `G` (an item to get, a permit).
pub struct WaitList<W, G> {
    nodes: Vec<Node<W, G>>,
    free: u32,
    first: u32,
    last: u32,
    waiting: usize,
    taken: usize,
}

/// What [`WaitList::finish`] finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Finished<W, G> {
    /// Nothing was granted; the place in the line is given up.
    Waiting(W),
    /// This was granted.
    Granted(G),
}

impl<W, G> Default for WaitList<W, G> {
    fn default() -> Self {
        Self::new()
    }
}

impl<W, G> WaitList<W, G> {
    /// An empty list; allocates nothing.
    pub const fn new() -> Self {
        WaitList {
            nodes: Vec::new(),
            free: NONE,
            first: NONE,
            last: NONE,
            waiting: 0,
            taken: 0,
        }
    }

    /// How many wait, those not counted who were granted something.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first == NONE
    }

    /// Goes to the end of the line.
    pub fn push(&mut self, who: Target, what: W) -> Place {
        let at = if self.free == NONE {
            let at = u32::try_from(self.nodes.len()).expect("fewer than 2^32 waiters");
            self.nodes.push(Node {
                stage: Stage::Free,
                prev: NONE,
                next: NONE,
            });
            at
        } else {
            let at = self.free;
            self.free = self.nodes[at as usize].next;
            at
        };
        let last = std::mem::replace(&mut self.last, at);
        let node = &mut self.nodes[at as usize];
        node.stage = Stage::Waiting(who, what);
        node.prev = last;
        node.next = NONE;
        match last {
            NONE => self.first = at,
            last => self.nodes[last as usize].next = at,
        }
        self.waiting += 1;
        self.taken += 1;
        Place(at)
    }

    fn unlink(&mut self, at: u32) {
        let Node { prev, next, .. } = self.nodes[at as usize];
        match prev {
            NONE => self.first = next,
            prev => self.nodes[prev as usize].next = next,
        }
        match next {
            NONE => self.last = prev,
            next => self.nodes[next as usize].prev = prev,
        }
        self.waiting -= 1;
    }

    /// Takes the first in the line out of it and grants them what `grant` makes of what they brought. Whoever
    /// calls it wakes the target when the lock is free. `None`: nobody waits, and `grant` is not called.
    #[must_use = "who was granted something has to be woken"]
    pub fn grant_with(&mut self, grant: impl FnOnce(W) -> G) -> Option<Target> {
        if self.first == NONE {
            return None;
        }
        let at = self.first;
        self.unlink(at);
        let node = &mut self.nodes[at as usize];
        match std::mem::replace(&mut node.stage, Stage::Free) {
            Stage::Waiting(who, what) => {
                node.stage = Stage::Granted(grant(what));
                Some(who)
            }
            Stage::Free | Stage::Granted(_) => unreachable!("only those who wait are in the line"),
        }
    }

    /// Grants `what` to the first in the line; see [`grant_with`](Self::grant_with).
    ///
    /// # Errors
    /// Gives it back when nobody waits.
    pub fn grant(&mut self, what: G) -> Result<Target, G> {
        if self.is_empty() {
            return Err(what);
        }
        Ok(self
            .grant_with(|_| what)
            .expect("somebody waits: just looked"))
    }

    /// Grants something to everybody in the line.
    #[must_use = "who was granted something has to be woken"]
    pub fn grant_all(&mut self, mut grant: impl FnMut(W) -> G) -> Vec<Target> {
        let mut woken = Vec::with_capacity(self.waiting);
        while let Some(who) = self.grant_with(&mut grant) {
            woken.push(who);
        }
        woken
    }

    /// Whether something was granted to the holder of `place`.
    pub fn is_granted(&self, place: &Place) -> bool {
        matches!(self.nodes[place.0 as usize].stage, Stage::Granted(_))
    }

    /// The holder of `place` has a new name, and stays where they are in the line.
    pub(super) fn rename(&mut self, place: &Place, name: Target) {
        if let Stage::Waiting(who, _) = &mut self.nodes[place.0 as usize].stage {
            *who = name;
        }
    }

    /// Gives a place back.
    pub fn finish(&mut self, place: Place) -> Finished<W, G> {
        let at = place.0;
        let found = match std::mem::replace(&mut self.nodes[at as usize].stage, Stage::Free) {
            Stage::Waiting(_, what) => {
                self.unlink(at);
                Finished::Waiting(what)
            }
            Stage::Granted(what) => Finished::Granted(what),
            Stage::Free => unreachable!("a place is given back once"),
        };
        self.nodes[at as usize].next = self.free;
        self.free = at;
        self.taken -= 1;
        if self.taken == 0 && self.nodes.len() > KEEP {
            self.nodes = Vec::new();
            self.free = NONE;
        }
        found
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn list() -> (WaitList<u32, &'static str>, Arc<Mutex<Vec<u32>>>) {
        (WaitList::new(), Arc::default())
    }

    fn target(log: &Arc<Mutex<Vec<u32>>>, n: u32) -> Target {
        let log = log.clone();
        Target::Call(Box::new(move || log.lock().unwrap().push(n)))
    }

    #[test]
    fn grants_go_in_the_order_of_coming() {
        let (mut l, log) = list();
        let places: Vec<_> = (0..4).map(|n| l.push(target(&log, n), n)).collect();
        assert_eq!(l.len(), 4);
        l.grant("a").ok().unwrap().wake();
        let [p0, p1, p2, p3] = <[Place; 4]>::try_from(places).unwrap();
        assert!(l.is_granted(&p0) && !l.is_granted(&p1));
        assert_eq!(l.finish(p1), Finished::Waiting(1));
        l.grant_with(|w| if w == 2 { "two" } else { "?" })
            .unwrap()
            .wake();
        let p4 = l.push(target(&log, 4), 4);
        l.grant_all(|_| "all").into_iter().for_each(Target::wake);
        assert_eq!(*log.lock().unwrap(), [0, 2, 3, 4]);
        assert!(l.is_empty() && l.grant("nobody").is_err());
        for (place, what) in [(p4, "all"), (p0, "a"), (p3, "all"), (p2, "two")] {
            assert_eq!(l.finish(place), Finished::Granted(what));
        }
    }

    #[test]
    fn places_are_used_again_and_a_crowd_is_forgotten() {
        let (mut l, log) = list();
        for _ in 0..3 {
            let place = l.push(target(&log, 0), 7);
            assert_eq!(l.finish(place), Finished::Waiting(7));
            assert_eq!(l.nodes.len(), 1);
        }
        let places: Vec<_> = (0..100).map(|n| l.push(target(&log, n), n)).collect();
        for (n, place) in places.into_iter().enumerate().rev() {
            assert_eq!(l.finish(place), Finished::Waiting(n as u32));
        }
        assert!(l.is_empty() && l.nodes.is_empty());
        let place = l.push(target(&log, 1), 1);
        assert_eq!(l.finish(place), Finished::Waiting(1));
    }
}
