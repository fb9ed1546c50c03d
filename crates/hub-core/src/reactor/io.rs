//! Io watchers (ev_io): level-triggered, on the backend's level registrations.

use super::watchers::Spec;
use super::{Class, Reactor, Revents, WatcherId};
use crate::event_loop::{Interest, Mode, Readiness, Watch};
use std::io;
use std::os::fd::RawFd;

impl Reactor {
    /// Changes what an io watcher watches. `false`, and no change, while it is active.
    pub fn set_io(&self, id: WatcherId, fd: RawFd, want: Interest) -> bool {
        self.watchers.with(|w| {
            if w.is_active(id) {
                return false;
            }
            match w.spec(id) {
                Some(spec @ Spec::Io { .. }) => {
                    *spec = Spec::Io { fd, want };
                    true
                }
                _ => false,
            }
        })
    }

    /// The descriptor and the directions of an io watcher.
    pub fn io(&self, id: WatcherId) -> Option<(RawFd, Interest)> {
        self.watchers.with(|w| match w.spec(id) {
            Some(Spec::Io { fd, want }) => Some((*fd, *want)),
            _ => None,
        })
    }

    pub(super) fn start_io(&self, id: WatcherId, fd: RawFd, want: Interest) -> io::Result<()> {
        if want.is_empty() {
            self.activate(id);
            return Ok(());
        }
        match self.with_backend(|b| b.watch(fd, Class::Watcher.key(id.0), want, Mode::Level)) {
            Ok(watch) => {
                self.activate(id);
                if watch == Watch::AlwaysReady {
                    self.watchers.with(|w| w.always.push(id));
                }
                Ok(())
            }
            Err(e) if e.raw_os_error() == Some(libc::EBADF) => {
                // libev's fd_kill.
                self.feed(id, Revents::ERROR | Revents::READ | Revents::WRITE);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    pub(super) fn stop_io(&self, id: WatcherId) {
        let always = self.watchers.with(|w| {
            let at = w.always.iter().position(|a| *a == id);
            at.map(|at| w.always.swap_remove(at)).is_some()
        });
        if !always {
            let _ = self.with_backend(|b| {
                b.unwatch(Class::Watcher.key(id.0));
                Ok(())
            });
        }
    }

    pub(super) fn io_ready(&self, id: WatcherId, readiness: Readiness) {
        self.watchers.with(|w| {
            if !w.is_active(id) {
                return;
            }
            if let Some(Spec::Io { want, .. }) = w.spec(id) {
                let asked = Revents::of(*want);
                let got = Revents(Revents::of(readiness).0 & asked.0);
                if !got.is_empty() {
                    w.feed(id, got);
                }
            }
        });
    }
}
