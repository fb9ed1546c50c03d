//! A watcher's life: added, started, stopped, removed.
//!
//! What a kind does when it starts and stops lives in the file of its name.

use super::child::ChildState;
use super::stat::StatState;
use super::watchers::{Spec, TimerState, Watcher, Watchers};
use super::{Reactor, WatcherId, WatcherKind};
use crate::event_loop::Interest;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whose part starting and stopping a watcher is, and with what.
#[derive(Clone, Copy)]
enum Starts {
    Io(RawFd, Interest),
    Timer,
    Signal(i32),
    Child,
    Async,
    Stat,
    /// Nobody's: it is only put into the list of its kind.
    Listed,
}

impl Spec {
    fn starts(&self) -> Starts {
        match self {
            Spec::Io { fd, want } => Starts::Io(*fd, *want),
            Spec::Timer(_) => Starts::Timer,
            Spec::Signal { signum } => Starts::Signal(*signum),
            Spec::Child(_) => Starts::Child,
            Spec::Async { .. } => Starts::Async,
            Spec::Stat(_) => Starts::Stat,
            Spec::Idle | Spec::Prepare | Spec::Check | Spec::Fork => Starts::Listed,
        }
    }
}

impl Reactor {
    /// Makes a watcher, not started yet. `data` is the embedder's, and comes back with each event.
    pub fn add(&self, kind: WatcherKind, data: usize) -> WatcherId {
        let spec = match kind {
            WatcherKind::Io { fd, want } => Spec::Io { fd, want },
            WatcherKind::Timer { after, repeat } => Spec::Timer(TimerState {
                after,
                repeat,
                key: None,
            }),
            WatcherKind::Signal { signum } => Spec::Signal { signum },
            WatcherKind::Child { pid, trace } => Spec::Child(Box::new(ChildState::new(pid, trace))),
            WatcherKind::Async => Spec::Async {
                sent: Arc::new(AtomicBool::new(false)),
            },
            WatcherKind::Idle => Spec::Idle,
            WatcherKind::Prepare => Spec::Prepare,
            WatcherKind::Check => Spec::Check,
            WatcherKind::Fork => Spec::Fork,
            WatcherKind::Stat { path, interval } => {
                Spec::Stat(Box::new(StatState::new(path, interval)))
            }
        };
        let watcher = Watcher::new(spec, data);
        WatcherId(self.watchers.with(|w| w.slab.insert(watcher)))
    }

    /// Stops a watcher and forgets it.
    pub fn remove(&self, id: WatcherId) {
        self.stop(id);
        // The value is dropped outside of the access: a child's descriptor is closed by it.
        drop(self.watchers.with(|w| w.slab.remove(id.0)));
    }

    /// Starts a watcher; does nothing if it is active.
    ///
    /// A bad descriptor of an io watcher is no error here: as in libev, the watcher stays inactive and
    /// gets its events with [`Revents::ERROR`](super::Revents::ERROR).
    ///
    /// # Errors
    /// `EBADF` after [`destroy`](Self::destroy), `ENOENT` for a stale `id`, `EBUSY` for a signal that another
    /// reactor watches, `EINVAL` for a signal that cannot be watched, and what the backend said.
    pub fn start(&self, id: WatcherId) -> io::Result<()> {
        if self.is_destroyed() {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let found = self.watchers.with(|w| {
            let w = w.slab.get(id.0)?;
            Some((w.active, w.spec.starts()))
        });
        let (active, what) = found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        if active {
            return Ok(());
        }
        match what {
            Starts::Io(fd, want) => return self.start_io(id, fd, want),
            Starts::Signal(signum) => return self.start_signal(id, signum),
            Starts::Child => return self.start_child(id),
            Starts::Timer => self.start_timer(id),
            Starts::Stat => self.start_stat(id),
            Starts::Async => self.start_async(id),
            Starts::Listed => self.activate(id),
        }
        Ok(())
    }

    /// Stops a watcher; an event that is pending is forgotten, as in libev.
    pub fn stop(&self, id: WatcherId) {
        self.clear_pending(id);
        let active = |w: &mut Watchers| {
            let w = w.slab.get(id.0).filter(|w| w.active)?;
            Some(w.spec.starts())
        };
        let Some(what) = self.watchers.with(active) else {
            return;
        };
        match what {
            Starts::Io(..) => self.stop_io(id),
            Starts::Timer => self.stop_timer(id),
            Starts::Stat => self.stop_stat(id),
            Starts::Child => self.stop_child(id),
            Starts::Signal(_) | Starts::Async | Starts::Listed => {}
        }
        self.deactivate(id);
        if let Starts::Signal(signum) = what {
            self.release_signal(signum);
        }
    }

    fn start_async(&self, id: WatcherId) {
        // What was sent while it was stopped is forgotten.
        if let Some(sent) = self.watchers.with(|w| w.async_flag(id)) {
            sent.store(false, Ordering::SeqCst);
        }
        self.activate(id);
    }

    /// A descriptor that a watcher keeps for itself is ready.
    pub(super) fn inner_ready(&self, id: WatcherId) {
        let what = self.watchers.with(|w| w.spec(id).map(|s| s.starts()));
        match what {
            Some(Starts::Child) => self.child_ready(id),
            Some(Starts::Stat) => self.hint_ready(id),
            _ => {}
        }
    }

    pub(super) fn activate(&self, id: WatcherId) {
        if self.watchers.with(|w| w.activate(id)) {
            self.reference();
        }
    }

    pub(super) fn deactivate(&self, id: WatcherId) {
        if self.watchers.with(|w| w.deactivate(id)) {
            self.unreference();
        }
    }
}
