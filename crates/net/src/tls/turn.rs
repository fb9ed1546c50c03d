//! [`Turn`]: one fiber at a time, in the order in which they came.

use crate::raw::Error;
use gevent_hub_core::cell::LocalCell;
use gevent_hub_core::hub::Hub;
use gevent_hub_core::reactor::{Nanos, Token, Wake};
use std::collections::VecDeque;

/// What only one fiber at a time may do. gevent-sync's locks lie above this crate, and serve threads too.
#[derive(Default)]
pub(super) struct Turn(LocalCell<State>);

#[derive(Default)]
struct State {
    taken: bool,
    /// Who was handed the turn and has not run since.
    heir: Option<Token>,
    waiting: VecDeque<Token>,
}

/// The turn, until this is dropped.
pub(super) struct Held<'a>(&'a Turn);

impl Turn {
    /// Takes the turn if nobody has it.
    pub(super) fn try_take(&self) -> Option<Held<'_>> {
        let free = self.0.with(|s| !std::mem::replace(&mut s.taken, true));
        free.then(|| Held(self))
    }

    /// Waits for the turn.
    pub(super) fn take(&self, deadline: Option<Nanos>) -> Result<Held<'_>, Error> {
        if let Some(held) = self.try_take() {
            return Ok(held);
        }
        Hub::with(|hub| {
            // Nobody but this thread could end its turn, and it is here.
            let hub = hub.ok_or(Error::Os(libc::EDEADLK))?;
            loop {
                let park = hub.prepare();
                let token = park.token();
                self.0.with(|s| s.waiting.push_back(token));
                let woken = park.wait(deadline);
                let mine = self.0.with(|s| {
                    s.waiting.retain(|&t| t != token);
                    s.heir.take_if(|heir| *heir == token).is_some()
                });
                let held = mine.then(|| Held(self));
                match (woken, held) {
                    (Err(interrupted), _) => return Err(interrupted.into()),
                    (Ok(_), Some(held)) => return Ok(held),
                    (Ok(Wake::Timeout), None) => return Err(Error::TimedOut),
                    (Ok(_), None) => {}
                }
            }
        })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        Hub::with(|hub| {
            loop {
                let heir = self.0.0.with(|s| {
                    s.heir = s.waiting.pop_front();
                    s.taken = s.heir.is_some();
                    s.heir
                });
                match (heir, hub) {
                    (None, _) => break,
                    // One whose park is about to end otherwise does not get it.
                    (Some(token), Some(hub)) if hub.unpark(token, Wake::Event) => break,
                    _ => {}
                }
            }
        });
    }
}
