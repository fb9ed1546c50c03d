//! Operations that the backend carries out by itself: started with a token, their results fetched by it.

use super::{Class, Entry, Reactor, Token, Wake};
use crate::event_loop::{Cancel, Key, Op, Start};
use crate::slab::Slab;
use std::io;
use std::pin::Pin;

/// Names an operation under way; stale once its result was taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OpId(pub Key);

/// The outcome of [`Reactor::op_start`].
#[derive(Debug)]
pub enum Started {
    /// Over already.
    Done(io::Result<u32>),
    /// Under way: [`Wake::Event`] of the token will go to the queue, and then the result can be taken.
    Parked(OpId),
    /// The backend cannot do it without blocking: give it to the offload pool.
    Offload,
}

enum State {
    Running(Token),
    /// Nobody waits for it any more; the entry goes to the queue when it is over.
    Abandoned(Entry),
    Done(io::Result<u32>),
}

#[derive(Default)]
pub(super) struct Ops {
    slab: Slab<State>,
    /// Entries of operations that were abandoned and whose reactor was destroyed before they were over.
    left: Vec<Entry>,
}

impl Ops {
    /// Forgets everything but the entries of what was abandoned.
    pub(super) fn give_up(&mut self) {
        for key in self.slab.keys() {
            if let Some(State::Abandoned(entry)) = self.slab.remove(key) {
                self.left.push(entry);
            }
        }
    }
}

impl Ops {
    pub(super) fn keys(&self) -> Vec<Key> {
        self.slab.keys()
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.slab.remove(key);
    }
}

impl Reactor {
    /// Starts an operation; it keeps the loop running.
    ///
    /// # Safety
    /// `op`, and all that it points to, stays where it is until [`op_take`](Self::op_take) has given the result
    /// or [`op_cancel`](Self::op_cancel) has said that it is over.
    pub unsafe fn op_start(&self, op: Pin<&mut Op>, token: Token) -> Started {
        let key = self.ops.with(|o| o.slab.insert(State::Running(token)));
        // SAFETY: the caller's promise.
        let start = self.with_backend(|b| Ok(unsafe { b.start(Class::Op.key(key), op) }));
        let over = match start {
            Ok(Start::Parked) => {
                self.reference();
                return Started::Parked(OpId(key));
            }
            Ok(Start::Done(result)) => Started::Done(result),
            Ok(Start::Offload) => Started::Offload,
            Err(e) => Started::Done(Err(e)),
        };
        self.ops.with(|o| o.slab.remove(key));
        over
    }

    /// The result of an operation; `None` while it is under way.
    pub fn op_take(&self, id: OpId) -> Option<io::Result<u32>> {
        self.ops.with(|o| match o.slab.get(id.0)? {
            State::Running(_) | State::Abandoned(_) => None,
            State::Done(_) => match o.slab.remove(id.0)? {
                State::Done(result) => Some(result),
                State::Running(_) | State::Abandoned(_) => None,
            },
        })
    }

    /// Ends an operation. After [`Cancel::Pending`] its wake and its result are still to come.
    pub fn op_cancel(&self, id: OpId) -> Cancel {
        if let Some(result) = self.op_take(id) {
            return Cancel::Finished(result);
        }
        if self.ops.with(|o| o.slab.get(id.0).is_none()) {
            return Cancel::Cancelled;
        }
        let outcome = self
            .with_backend(|b| Ok(b.cancel(Class::Op.key(id.0))))
            .unwrap_or(Cancel::Cancelled);
        if !matches!(outcome, Cancel::Pending) {
            self.ops.with(|o| o.slab.remove(id.0));
            self.unreference();
        }
        outcome
    }

    /// Leaves an operation, whose cancel was [`Cancel::Pending`], to itself: it does not keep the loop running,
    /// and wakes nobody. When it is over `entry` goes to the queue; whoever runs that takes the result, and may
    /// then free the operation's memory. If it is over already, the entry goes there at once.
    pub fn op_abandon(&self, id: OpId, entry: Entry) {
        let over = self.ops.with(|o| match o.slab.get_mut(id.0) {
            Some(state @ State::Running(_)) => {
                *state = State::Abandoned(entry);
                false
            }
            _ => true,
        });
        if over {
            self.push(entry);
        } else {
            self.unreference();
        }
    }

    /// After [`destroy`](Self::destroy): the entries of [abandoned](Self::op_abandon) operations that were not
    /// over before. Now they are.
    pub fn take_abandoned(&self) -> Vec<Entry> {
        self.ops.with(|o| std::mem::take(&mut o.left))
    }

    pub(super) fn op_done(&self, key: Key, result: io::Result<u32>) {
        let before = self.ops.with(|o| match o.slab.get_mut(key) {
            Some(state @ (State::Running(_) | State::Abandoned(_))) => {
                self.op_count.set(self.op_count.get() + 1);
                Some(std::mem::replace(state, State::Done(result)))
            }
            _ => None,
        });
        match before {
            Some(State::Running(token)) => {
                self.unreference();
                self.watchers
                    .with(|w| w.pending.push_wake(token, Wake::Event));
            }
            Some(State::Abandoned(entry)) => self.push(entry),
            Some(State::Done(_)) | None => {}
        }
    }
}
