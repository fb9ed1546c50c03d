//! The bell: an eventfd for those outside who wait for the loop to have something to do.

use super::UringLoop;
use crate::waker::Waker;
use gevent_hub_core::event_loop::Wake;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

impl UringLoop {
    /// The descriptor of the bell, which is hung up at the first call.
    pub(super) fn bell_fd(&mut self) -> Option<RawFd> {
        if self.bell.is_none() {
            let bell = Arc::new(Waker::new().ok()?);
            self.ring.ring_bell(bell.fd()).ok()?;
            self.waker.ring(&bell);
            self.bell = Some(bell);
            self.leave_to_others().ok()?;
        }
        self.bell.as_ref().map(|bell| bell.fd())
    }

    /// Has the kernel wait for everything, and ring the bell, while we do not poll.
    pub(super) fn leave_to_others(&mut self) -> io::Result<()> {
        self.flush();
        self.flush_unwanted();
        self.ring.enter(None)?;
        let Some(bell) = &self.bell else {
            return Ok(());
        };
        // It has rung for what this poll has taken, too.
        bell.silence();
        if self.ring.has_completions() || self.ring.work_left() || !self.backlog.is_empty() {
            bell.wake();
        }
        Ok(())
    }
}
