//! The loop in a forked child.

use super::UringLoop;
use super::completion::outcome;
use crate::descriptor::is_regular;
use crate::requests::What;
use crate::setup;
use crate::sqe;
use gevent_hub_core::event_loop::{Event, Op};
use std::io;

impl UringLoop {
    /// Whether `op`, under way when this process was forked, is done once and by the parent: a child that repeats
    /// it would write twice, or take a part of the file that the parent then misses.
    fn is_the_parents(op: &Op) -> bool {
        sqe::writes(op) || sqe::moves(op) && is_regular(sqe::fd_of(op))
    }

    /// In a child: a new ring, on which everything goes on.
    pub(super) fn rebuild(&mut self) -> io::Result<()> {
        self.ring.replace(setup::open(&self.lacking)?);
        self.waker.renew()?;
        self.waker_armed = false;
        if let Some(bell) = &self.bell {
            bell.renew()?;
            self.ring.ring_bell(bell.fd())?;
        }
        self.mark.set();
        self.unwanted.clear();
        self.queue.clear();
        self.resting.clear();
        for index in self.requests.indices() {
            let r = self.requests.get(index);
            let cancelling = r.cancelling;
            match r.what {
                // SAFETY: the child has a copy of the memory, where it was.
                What::Op { key, op } if cancelling || Self::is_the_parents(unsafe { &*op }) => {
                    self.backlog
                        .push(Event::Done(key, outcome(-libc::ECANCELED)));
                    self.requests.remove(index);
                }
                What::Watch { .. } | What::Op { .. } => self.enqueue(index),
                What::Dead => self.requests.remove(index),
                What::Free => {}
            }
        }
        Ok(())
    }
}
