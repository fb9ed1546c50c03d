//! [`Queue`]: items on their way from some fibers and threads to others.

mod container;
mod error;

pub use container::{Container, Fifo, Lifo, Priority};
pub use error::{GetError, PutError};

use crate::state::Ledger;
use crate::waiters::{Guard, Lock, Outcome, Target, WaitList, wait};
use gevent_hub_core::hub::Interrupted;
use std::time::Duration;

struct State<C: Container> {
    items: C,
    ledger: Ledger,
    /// Nobody waits here while there is an item. Granted an item, or nothing when the queue is closed.
    getters: WaitList<(), Option<C::Item>>,
    /// Nobody waits here while there is room. They bring their item; it is taken, or given back at the close.
    putters: WaitList<C::Item, Result<(), C::Item>>,
    joiners: WaitList<(), ()>,
}

impl<C: Container> State<C> {
    /// Puts an item where it belongs, if that needs no wait. The target has to be woken.
    fn offer(&mut self, item: C::Item) -> Result<Option<Target>, PutError<C::Item>> {
        if self.ledger.is_closed() {
            return Err(PutError::Closed(item));
        }
        let woken = match self.getters.grant(Some(item)) {
            Ok(getter) => Some(getter),
            Err(Some(item)) if self.ledger.has_room(self.items.len()) => {
                self.items.push(item);
                None
            }
            Err(Some(item)) => return Err(PutError::Full(item)),
            Err(None) => unreachable!("an item was offered"),
        };
        self.ledger.begin();
        Ok(woken)
    }

    /// Takes the next item, and lets the first putter's in.
    fn next(&mut self) -> Option<(C::Item, Option<Target>)> {
        let State {
            items,
            putters,
            ledger,
            ..
        } = self;
        let Some(item) = items.pop() else {
            // Without room for any, an item goes from hand to hand.
            let mut handed = None;
            let putter = putters.grant_with(|item| {
                handed = Some(item);
                ledger.begin();
                Ok(())
            })?;
            return handed.map(|item| (item, Some(putter)));
        };
        // More than fit may be there, after an item was taken back.
        let woken = if ledger.has_room(items.len()) {
            putters.grant_with(|item| {
                items.push(item);
                ledger.begin();
                Ok(())
            })
        } else {
            None
        };
        Some((item, woken))
    }
}

/// A queue of items, between fibers of any hubs and threads. Whoever waits is served first come, first
/// served; an item goes straight to a getter that waits.
///
/// The order of the items is that of its [`Container`]: [`Fifo`], [`Lifo`] or [`Priority`].
pub struct Queue<C: Container> {
    state: Lock<State<C>>,
}

impl<T> Queue<Fifo<T>> {
    /// First in, first out, without a limit.
    pub fn unbounded() -> Self {
        Self::with_capacity(usize::MAX)
    }

    /// First in, first out, of at most `capacity` items. With 0, a put waits for the get that takes its item.
    pub fn bounded(capacity: usize) -> Self {
        Self::with_capacity(capacity)
    }
}

impl<C: Container> Queue<C> {
    /// Of any order, of at most `capacity` items.
    pub fn with_capacity(capacity: usize) -> Self {
        Queue {
            state: Lock::new(State {
                items: C::default(),
                ledger: Ledger::new(capacity),
                getters: WaitList::new(),
                putters: WaitList::new(),
                joiners: WaitList::new(),
            }),
        }
    }

    /// How many items it holds, those of waiting putters not counted.
    pub fn len(&self) -> usize {
        self.state.lock().items.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a put would have to wait.
    pub fn is_full(&self) -> bool {
        let state = self.state.lock();
        !state.ledger.has_room(state.items.len()) && state.getters.is_empty()
    }

    /// How many items it holds at most.
    pub fn capacity(&self) -> usize {
        self.state.lock().ledger.capacity()
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.state.lock().ledger.is_closed()
    }

    /// Puts an item if that needs no wait.
    ///
    /// # Errors
    /// [`PutError::Full`] and [`PutError::Closed`].
    pub fn try_put(&self, item: C::Item) -> Result<(), PutError<C::Item>> {
        let woken = self.state.lock().offer(item)?;
        wake(woken);
        Ok(())
    }

    /// Puts an item, and waits for room if need be.
    ///
    /// # Errors
    /// [`PutError::Closed`] and [`PutError::Interrupted`].
    pub fn put(&self, item: C::Item) -> Result<(), PutError<C::Item>> {
        self.put_for(item, None)
    }

    /// Puts an item, and waits for room for so long.
    ///
    /// # Errors
    /// [`PutError`].
    pub fn put_timeout(&self, item: C::Item, timeout: Duration) -> Result<(), PutError<C::Item>> {
        self.put_for(item, Some(timeout))
    }

    fn put_for(&self, item: C::Item, timeout: Option<Duration>) -> Result<(), PutError<C::Item>> {
        let mut state = self.state.lock();
        let item = match state.offer(item) {
            Ok(woken) => {
                drop(state);
                wake(woken);
                return Ok(());
            }
            Err(PutError::Full(item)) => item,
            Err(other) => return Err(other),
        };
        match wait(&self.state, state, |s| &mut s.putters, item, timeout) {
            Outcome::Granted(Ok(())) => Ok(()),
            Outcome::Granted(Err(item)) => Err(PutError::Closed(item)),
            Outcome::TimedOut(item) => Err(PutError::Full(item)),
            Outcome::Interrupted(item, i) | Outcome::Overtaken(Err(item), i) => {
                Err(PutError::Interrupted(Some(item), i))
            }
            Outcome::Overtaken(Ok(()), i) => Err(PutError::Interrupted(None, i)),
        }
    }

    /// Gets the next item if there is one.
    ///
    /// # Errors
    /// [`GetError::Empty`], and [`GetError::Closed`] when none will ever come.
    pub fn try_get(&self) -> Result<C::Item, GetError> {
        self.take(self.state.lock()).map_err(|(_, e)| e)
    }

    /// Gets the next item, and waits for one if need be.
    ///
    /// # Errors
    /// [`GetError::Closed`] and [`GetError::Interrupted`].
    pub fn get(&self) -> Result<C::Item, GetError> {
        self.get_for(None)
    }

    /// Gets the next item, and waits for one for so long.
    ///
    /// # Errors
    /// [`GetError`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<C::Item, GetError> {
        self.get_for(Some(timeout))
    }

    fn take<'a>(
        &self,
        mut state: Guard<'a, State<C>>,
    ) -> Result<C::Item, (Guard<'a, State<C>>, GetError)> {
        match state.next() {
            Some((item, woken)) => {
                drop(state);
                wake(woken);
                Ok(item)
            }
            None if state.ledger.is_closed() => Err((state, GetError::Closed)),
            None => Err((state, GetError::Empty)),
        }
    }

    fn get_for(&self, timeout: Option<Duration>) -> Result<C::Item, GetError> {
        let state = match self.take(self.state.lock()) {
            Ok(item) => return Ok(item),
            Err((state, GetError::Empty)) => state,
            Err((_, other)) => return Err(other),
        };
        match wait(&self.state, state, |s| &mut s.getters, (), timeout) {
            Outcome::Granted(Some(item)) => Ok(item),
            Outcome::Granted(None) => Err(GetError::Closed),
            Outcome::TimedOut(()) => Err(GetError::Empty),
            Outcome::Interrupted((), i) | Outcome::Overtaken(None, i) => {
                Err(GetError::Interrupted(i))
            }
            Outcome::Overtaken(Some(item), i) => {
                self.unget(item);
                Err(GetError::Interrupted(i))
            }
        }
    }

    /// Takes an item back: it goes to a getter that waits, or before all others.
    fn unget(&self, item: C::Item) {
        let woken = {
            let mut state = self.state.lock();
            match state.getters.grant(Some(item)) {
                Ok(getter) => Some(getter),
                Err(Some(item)) => {
                    state.items.unpop(item);
                    None
                }
                Err(None) => None,
            }
        };
        wake(woken);
    }

    /// Ends it: puts fail from now on, those that wait too; gets go on until it is empty. `false`: it was
    /// closed already.
    pub fn close(&self) -> bool {
        let (putters, getters) = {
            let mut state = self.state.lock();
            if !state.ledger.close() {
                return false;
            }
            (
                state.putters.grant_all(Err),
                state.getters.grant_all(|()| None),
            )
        };
        putters.into_iter().chain(getters).for_each(Target::wake);
        true
    }

    /// Tells that an item that was gotten is dealt with. `false`: more often than items were put.
    pub fn task_done(&self) -> bool {
        let joiners = {
            let mut state = self.state.lock();
            match state.ledger.done() {
                None => return false,
                Some(false) => return true,
                Some(true) => state.joiners.grant_all(|()| ()),
            }
        };
        joiners.into_iter().for_each(Target::wake);
        true
    }

    /// Items put that are not [done](Self::task_done).
    pub fn unfinished(&self) -> usize {
        self.state.lock().ledger.unfinished()
    }

    /// Waits until every item that was put is [done](Self::task_done), for so long, or without a limit.
    /// `false`: the time was over first.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub fn join(&self, timeout: Option<Duration>) -> Result<bool, Interrupted> {
        let state = self.state.lock();
        if state.ledger.unfinished() == 0 {
            return Ok(true);
        }
        match wait(&self.state, state, |s| &mut s.joiners, (), timeout) {
            Outcome::Granted(()) => Ok(true),
            Outcome::TimedOut(()) => Ok(false),
            Outcome::Interrupted((), i) | Outcome::Overtaken((), i) => Err(i),
        }
    }
}

fn wake(target: Option<Target>) {
    if let Some(target) = target {
        target.wake();
    }
}
