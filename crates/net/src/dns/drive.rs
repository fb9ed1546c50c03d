//! [`block_on`]: futures on the fiber that wants their result.
//!
//! Every call is a small executor of its own: it polls its future and what that has spawned, and parks its
//! fiber for all their descriptors and timers at once. So nothing is shared between look-ups or outlives
//! one: when a fiber is interrupted, its futures and their sockets go; after a fork there is nothing to
//! repair. The leaves find their executor in a thread-local while they are polled or dropped.

use crate::raw::{Error, IoHandle, Kind, deadline_after};
use gevent_hub_core::event_loop::{Interest, Readiness};
use gevent_hub_core::hub::Hub;
use gevent_hub_core::reactor::{Nanos, monotonic};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

type Background = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    static CURRENT: Cell<*const Drive> = const { Cell::new(ptr::null()) };
}

/// One waker for all futures of a call: there are few, and a poll too many costs little.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// A descriptor that a future has found not ready.
struct Io {
    handle: IoHandle,
    read: Option<Waker>,
    write: Option<Waker>,
}

struct Timer {
    id: u64,
    at: Nanos,
    waker: Waker,
}

/// What the futures of one call wait for.
#[derive(Default)]
struct Drive {
    spawned: RefCell<Vec<Background>>,
    io: RefCell<Vec<Io>>,
    timers: RefCell<Vec<Timer>>,
    next_timer: Cell<u64>,
    woken: Arc<Woken>,
}

/// Makes a drive the thread's, until it is dropped. No fiber switches meanwhile.
struct Entered(*const Drive);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Calls `f` with the drive whose futures are polled or dropped now.
fn with_current<R>(f: impl FnOnce(Option<&Drive>) -> R) -> R {
    // SAFETY: `enter` borrows the drive for as long as its pointer is here.
    f(unsafe { CURRENT.get().as_ref() })
}

fn now() -> Nanos {
    Hub::with(|hub| hub.map_or_else(monotonic, |hub| hub.reactor().clock_now()))
}

impl Drive {
    fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        let _back = Entered(CURRENT.replace(self));
        f()
    }

    /// Polls what was spawned once; what is over is dropped.
    fn poll_spawned(&self, cx: &mut Context<'_>) {
        let mut polled = self.spawned.take();
        polled.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        // What these have spawned comes behind them.
        polled.append(&mut self.spawned.borrow_mut());
        self.spawned.replace(polled);
    }

    /// Parks until something that a future waits for may have happened, and wakes those futures.
    fn park(&self, deadline: Option<Nanos>) -> Result<(), Error> {
        let next = self.timers.borrow().iter().map(|t| t.at).min();
        let until = [next, deadline].into_iter().flatten().min();
        // The handles are out of the cell while the fiber is parked; nobody polls these futures meanwhile.
        let waiting = self.io.take();
        let waits: Vec<(&IoHandle, Interest)> = waiting
            .iter()
            .filter_map(|io| {
                let want = match (&io.read, &io.write) {
                    (Some(_), Some(_)) => Readiness::READ.with(Readiness::WRITE),
                    (Some(_), None) => Readiness::READ,
                    (None, Some(_)) => Readiness::WRITE,
                    (None, None) => return None,
                };
                Some((&io.handle, want))
            })
            .collect();
        let woken = if waits.is_empty() && until.is_none() {
            // Nothing would ever wake it.
            Err(Error::Os(libc::EDEADLK))
        } else {
            IoHandle::wait_any(&waits, until)
        };
        self.io.replace(waiting);
        let ready = match woken {
            Ok(()) => true,
            Err(Error::TimedOut) => false,
            Err(other) => return Err(other),
        };
        let now = now();
        if deadline.is_some_and(|at| at <= now) {
            return Err(Error::TimedOut);
        }
        if ready {
            for io in &mut *self.io.borrow_mut() {
                let wakers = [io.read.take(), io.write.take()];
                wakers.into_iter().flatten().for_each(Waker::wake);
            }
        }
        self.timers.borrow_mut().retain(|timer| {
            let due = timer.at <= now;
            if due {
                timer.waker.wake_by_ref();
            }
            !due
        });
        Ok(())
    }
}

/// Runs `future` and what it spawns until it is ready, the deadline has passed, or the fiber is interrupted.
/// Whatever is not finished by then is dropped.
///
/// # Errors
/// As [`IoHandle::wait`].
pub(super) fn block_on<T>(
    future: impl Future<Output = T>,
    deadline: Option<Nanos>,
) -> Result<T, Error> {
    /// Drops the futures where their leaves find their drive.
    struct Running<'a, T> {
        drive: Drive,
        main: Option<Pin<Box<dyn Future<Output = T> + 'a>>>,
    }
    impl<T> Drop for Running<'_, T> {
        fn drop(&mut self) {
            let (main, drive) = (self.main.take(), &self.drive);
            drive.enter(|| {
                drop(main);
                drop(drive.spawned.take());
            });
        }
    }
    let mut running = Running {
        drive: Drive::default(),
        main: Some(Box::pin(future)),
    };
    loop {
        let Running { drive, main } = &mut running;
        let main = main.as_mut().expect("it is dropped at the end only");
        let waker = Waker::from(drive.woken.clone());
        let cx = &mut Context::from_waker(&waker);
        let ready = drive.enter(|| {
            loop {
                drive.woken.0.store(false, Ordering::Release);
                if let Poll::Ready(value) = main.as_mut().poll(cx) {
                    return Some(value);
                }
                drive.poll_spawned(cx);
                if !drive.woken.0.load(Ordering::Acquire) {
                    return None;
                }
            }
        });
        match ready {
            Some(value) => return Ok(value),
            None => drive.park(deadline)?,
        }
    }
}

/// Leaves a future to the call that polls now.
pub(super) fn spawn(future: Background) {
    with_current(|drive| {
        if let Some(drive) = drive {
            drive.spawned.borrow_mut().push(future);
            drive.woken.0.store(true, Ordering::Release);
        }
    });
}

/// `fd` gave EAGAIN in the direction of `want`: `cx` is woken when it may be ready.
pub(super) fn would_block(fd: RawFd, want: Interest, cx: &Context<'_>) {
    with_current(|drive| {
        let Some(drive) = drive else { return };
        let mut io = drive.io.borrow_mut();
        let place = io.iter().position(|io| io.handle.fd() == fd);
        let place = place.unwrap_or_else(|| {
            io.push(Io {
                handle: IoHandle::new(fd, Kind::Other),
                read: None,
                write: None,
            });
            io.len() - 1
        });
        let io = &mut io[place];
        let waker = Some(cx.waker().clone());
        if want.has(Readiness::READ) {
            io.read = waker;
        } else {
            io.write = waker;
        }
        Hub::with(|hub| hub.map(|hub| io.handle.would_block(hub, want)));
    });
}

/// To be called before the close(2) of a descriptor that a future owns.
pub(super) fn closing(fd: RawFd) {
    with_current(|drive| {
        if let Some(drive) = drive {
            drive.io.borrow_mut().retain(|io| {
                let it = io.handle.fd() == fd;
                if it {
                    io.handle.closing();
                }
                !it
            });
        }
    });
}

/// A future that is ready some time from its first poll on.
pub(super) struct Delay {
    duration: Duration,
    begun: Option<(u64, Nanos)>,
}

impl Delay {
    pub(super) fn new(duration: Duration) -> Self {
        Delay {
            duration,
            begun: None,
        }
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        with_current(|drive| {
            let drive = drive.expect("it is polled by block_on alone");
            let duration = self.duration;
            let (id, at) = *self.begun.get_or_insert_with(|| {
                let id = drive.next_timer.get();
                drive.next_timer.set(id + 1);
                (id, Hub::with(|hub| deadline_after(hub, duration)))
            });
            let mut timers = drive.timers.borrow_mut();
            timers.retain(|timer| timer.id != id);
            if at <= now() {
                return Poll::Ready(());
            }
            let waker = cx.waker().clone();
            timers.push(Timer { id, at, waker });
            Poll::Pending
        })
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        let Some((id, _)) = self.begun else { return };
        with_current(|drive| {
            if let Some(drive) = drive {
                drive.timers.borrow_mut().retain(|timer| timer.id != id);
            }
        });
    }
}
