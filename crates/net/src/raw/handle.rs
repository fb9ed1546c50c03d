//! [`IoHandle`]: a descriptor's number and its place on the loop of whichever hub uses it.

use super::Error;
use gevent_hub_core::cell::LocalCell;
use gevent_hub_core::event_loop::{Interest, Readiness};
use gevent_hub_core::hub::{Hub, Interrupted};
pub use gevent_hub_core::reactor::Kind;
use gevent_hub_core::reactor::{Entry, Nanos, Remote, SourceId, Wake, monotonic};
use std::cell::Cell;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

/// The moment that is `timeout` from now, on the clock of the hub's loop or of the machine without one.
/// A timeout too long for the clock never ends.
pub fn deadline_after(hub: Option<&Hub>, timeout: Duration) -> Nanos {
    let now = hub.map_or_else(monotonic, |h| h.reactor().clock_now());
    now.saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX))
}

/// A non-blocking descriptor that fibers wait for. It borrows the number: whoever owns the descriptor
/// calls [`closing`](Self::closing) before close(2), or [`detach`](Self::detach) when it lives on elsewhere.
///
/// It becomes a source of the loop of the hub that waits for it first, and moves when another hub does;
/// it is meant to be waited for on one hub at a time: those that wait elsewhere hear that it was closed. On a thread without a hub it waits by poll(2).
pub struct IoHandle {
    fd: Cell<RawFd>,
    kind: Kind,
    /// The hub's id and the source on its loop; 0 before the first wait.
    home: Cell<(u64, Option<SourceId>)>,
    /// The way to that loop from other threads.
    remote: LocalCell<Option<Arc<Remote>>>,
}

impl IoHandle {
    /// A handle on `fd`, which is non-blocking.
    pub const fn new(fd: RawFd, kind: Kind) -> Self {
        IoHandle {
            fd: Cell::new(fd),
            kind,
            home: Cell::new((0, None)),
            remote: LocalCell::new(None),
        }
    }

    /// The descriptor, or -1 after [`closing`](Self::closing) or [`detach`](Self::detach).
    #[inline]
    pub fn fd(&self) -> RawFd {
        self.fd.get()
    }

    /// What it was said to be.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    #[inline]
    fn here(&self, hub: &Hub) -> Option<SourceId> {
        let (home, source) = self.home.get();
        if home == hub.id() { source } else { None }
    }

    #[inline]
    fn source(&self, hub: &Hub) -> Result<SourceId, Error> {
        match self.here(hub) {
            Some(source) => Ok(source),
            None => self.settle(hub),
        }
    }

    #[cold]
    fn settle(&self, hub: &Hub) -> Result<SourceId, Error> {
        if self.fd.get() < 0 {
            return Err(Error::Os(libc::EBADF));
        }
        self.leave();
        let source = hub.reactor().source(self.fd.get());
        self.home.set((hub.id(), Some(source)));
        self.remote.with(|r| *r = Some(hub.reactor().remote()));
        Ok(source)
    }

    /// Whether a read is worth a system call: false once one has emptied the descriptor, until the loop
    /// reports it ready.
    #[inline]
    pub fn maybe_readable(&self, hub: &Hub) -> bool {
        self.here(hub)
            .is_none_or(|source| hub.reactor().source_may_read(source))
    }

    /// A call gave EAGAIN in the directions of `want`.
    #[inline]
    pub fn would_block(&self, hub: &Hub, want: Interest) {
        if let Ok(source) = self.source(hub) {
            hub.reactor().source_clear(source, want);
        }
    }

    /// A read without flags has given `got` of the `asked` bytes: if that tells that the descriptor is
    /// empty, the next read waits at once, without a call that would fail.
    #[inline]
    pub fn was_read(&self, hub: &Hub, got: usize, asked: usize) {
        // Not settled yet: the first EAGAIN registers it.
        if let Some(source) = self.here(hub) {
            hub.reactor().source_was_read(source, self.kind, got, asked);
        }
    }

    /// Parks the fiber until the descriptor may be ready in one of the directions of `want`. It may return
    /// early; the caller tries its call and waits again.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::Closed`], [`Error::Interrupted`], and `EBADF` or what the loop says at
    /// the registration.
    #[inline]
    pub fn wait(&self, hub: &Hub, want: Interest, deadline: Option<Nanos>) -> Result<(), Error> {
        let source = self.source(hub)?;
        let reactor = hub.reactor();
        let park = hub.prepare();
        let token = park.token();
        if !reactor.source_wait(source, want, token)? {
            return Ok(());
        }
        match park.wait(deadline) {
            Ok(Wake::Ready) => Ok(()),
            Ok(Wake::Closed) => Err(Error::Closed),
            Ok(other) => {
                reactor.source_unwait(source, token);
                if other == Wake::Timeout {
                    Err(Error::TimedOut)
                } else {
                    Ok(())
                }
            }
            Err(interrupted) => {
                reactor.source_unwait(source, token);
                Err(Error::Interrupted(interrupted))
            }
        }
    }

    /// [`wait`](Self::wait) on the thread's hub, or poll(2) on a thread without one.
    ///
    /// # Errors
    /// As `wait`.
    #[inline]
    pub fn wait_for(&self, want: Interest, deadline: Option<Nanos>) -> Result<(), Error> {
        Hub::with(|hub| match hub {
            Some(hub) => self.wait(hub, want, deadline),
            None => self.poll(want, deadline),
        })
    }

    /// Waits until one of `waits` may be ready. See [`wait`](Self::wait).
    ///
    /// # Errors
    /// As `wait`.
    pub fn wait_any(waits: &[(&IoHandle, Interest)], deadline: Option<Nanos>) -> Result<(), Error> {
        Hub::with(|hub| match hub {
            Some(hub) => Self::park_for_any(hub, waits, deadline),
            None => poll(waits, deadline),
        })
    }

    fn park_for_any(
        hub: &Hub,
        waits: &[(&IoHandle, Interest)],
        deadline: Option<Nanos>,
    ) -> Result<(), Error> {
        let reactor = hub.reactor();
        let park = hub.prepare();
        let token = park.token();
        let mut begun = Vec::with_capacity(waits.len());
        let mut register = || {
            for (handle, want) in waits {
                let source = handle.source(hub)?;
                if !reactor.source_wait(source, *want, token)? {
                    return Ok(true);
                }
                begun.push(source);
            }
            Ok::<_, Error>(false)
        };
        let woken = match register() {
            Ok(false) => match park.wait(deadline) {
                Ok(wake) if hub.was_overtaken() => Err(Error::Interrupted(Interrupted {
                    granted: Some(wake),
                })),
                Ok(Wake::Timeout) => Err(Error::TimedOut),
                Ok(Wake::Closed) => Err(Error::Closed),
                Ok(_) => Ok(()),
                Err(interrupted) => Err(Error::Interrupted(interrupted)),
            },
            Ok(true) => Ok(()),
            Err(e) => Err(e),
        };
        for source in begun {
            reactor.source_unwait(source, token);
        }
        woken
    }

    fn poll(&self, want: Interest, deadline: Option<Nanos>) -> Result<(), Error> {
        poll(&[(self, want)], deadline)
    }

    /// To be called before close(2): whoever waits gets [`Error::Closed`], and the handle is dead. Waiters on
    /// another thread's hub hear of it a little later.
    pub fn closing(&self) {
        let fd = self.fd.replace(-1);
        let (home, source) = self.home.get();
        let at_home = Hub::with(|hub| match (hub, source) {
            (Some(hub), Some(source)) if home == hub.id() => {
                hub.reactor().source_closing(source);
                true
            }
            (Some(hub), _) if fd >= 0 => {
                hub.reactor().fd_closing(fd);
                false
            }
            _ => false,
        });
        if at_home {
            self.home.set((0, None));
            drop(self.remote.take());
        } else {
            self.leave();
        }
    }

    /// Gives the descriptor back without closing it: waiters get [`Error::Closed`], the loop forgets it, and
    /// the handle is dead. Returns the descriptor.
    pub fn detach(&self) -> RawFd {
        self.leave();
        self.fd.replace(-1)
    }

    /// The loop that has it as a source, if one has, forgets it.
    fn leave(&self) {
        let (home, source) = self.home.replace((0, None));
        let remote = self.remote.take();
        let Some(source) = source else { return };
        let at_home = Hub::with(|hub| match hub {
            Some(hub) if hub.id() == home => {
                hub.reactor().source_detach(source);
                true
            }
            _ => false,
        });
        if let Some(remote) = remote.filter(|_| !at_home) {
            remote.push(Entry::Closed(source));
        }
    }
}

/// poll(2) until one of `waits` is ready.
fn poll(waits: &[(&IoHandle, Interest)], deadline: Option<Nanos>) -> Result<(), Error> {
    let mut fds: Vec<libc::pollfd> = waits
        .iter()
        .map(|(handle, want)| {
            let mut events = 0;
            if want.has(Readiness::READ) {
                events |= libc::POLLIN | libc::POLLPRI;
            }
            if want.has(Readiness::WRITE) {
                events |= libc::POLLOUT;
            }
            libc::pollfd {
                fd: handle.fd.get(),
                events,
                revents: 0,
            }
        })
        .collect();
    loop {
        let left = match deadline {
            None => -1,
            // Rounded up, or the last millisecond would be spent spinning.
            Some(at) => {
                let left = at.saturating_sub(monotonic()).div_ceil(1_000_000);
                i32::try_from(left).unwrap_or(i32::MAX)
            }
        };
        // SAFETY: so many valid `pollfd`s, which outlive the call.
        match unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, left) } {
            0 if deadline.is_some_and(|at| at <= monotonic()) => return Err(Error::TimedOut),
            0 => {}
            n if n > 0 && fds.iter().any(|f| f.revents & libc::POLLNVAL != 0) => {
                return Err(Error::Closed);
            }
            n if n > 0 => return Ok(()),
            _ => match Error::last_os() {
                Error::Os(libc::EINTR) => {}
                other => return Err(other),
            },
        }
    }
}
