//! Waking: a user event of the edge queue behind a flag, so that many wakes are one system call; a pipe where
//! there are no user events, or triggering them is not allowed in a signal handler.

use crate::sys::*;
use gevent_hub_core::event_loop::Wake;
use gevent_hub_core::os::check;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// The identifier of the user event.
const WAKE: usize = 0;

/// The edge queue, and how to wake whoever waits for it. It may outlive the loop, and closes the queue then.
pub struct Waker {
    /// Replaced in a forked child only, where no other thread is.
    queue: AtomicPtr<Queue>,
    pending: AtomicBool,
    /// The reading and the writing end, if it goes by a pipe.
    pipe: Option<(OwnedFd, OwnedFd)>,
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors, which are ours then; their flags.
    unsafe {
        check(libc::pipe(fds.as_mut_ptr()))?;
        for fd in fds {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
        }
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

fn add_user_event(queue: &Queue) -> io::Result<()> {
    let change = Kevent::new(WAKE, EVFILT_USER, EV_ADD | EV_CLEAR);
    queue.kevent(&[change], &mut [], Some(0)).map(drop)
}

fn add_pipe(queue: &Queue, end: RawFd) -> io::Result<()> {
    let change = Kevent::new(end as usize, EVFILT_READ, EV_ADD | EV_CLEAR);
    queue.kevent(&[change], &mut [], Some(0)).map(drop)
}

impl Waker {
    /// Takes over the edge queue.
    pub fn new(queue: Queue) -> io::Result<Waker> {
        let pipe = if Queue::SIGNAL_SAFE && add_user_event(&queue).is_ok() {
            None
        } else {
            let pipe = pipe()?;
            add_pipe(&queue, pipe.0.as_raw_fd())?;
            Some(pipe)
        };
        Ok(Waker {
            queue: AtomicPtr::new(Box::into_raw(Box::new(queue))),
            pending: AtomicBool::new(false),
            pipe,
        })
    }

    /// The edge queue.
    pub fn queue(&self) -> &Queue {
        // SAFETY: a valid box until this is dropped; it is replaced in a child that has one thread, by the loop,
        // which holds no such reference then.
        unsafe { &*self.queue.load(Ordering::Acquire) }
    }

    /// Whether an event of the edge queue is a wake.
    pub fn is_wake(&self, event: &Kevent) -> bool {
        match &self.pipe {
            None => event.filter == EVFILT_USER,
            Some((end, _)) => {
                event.filter == EVFILT_READ && event.ident == end.as_raw_fd() as usize
            }
        }
    }

    /// Called by the loop when it has seen the wake. A wake between that and the flag finds the flag set, and is
    /// covered by the caller's look at the queues, which follows.
    pub fn accept(&self) {
        if let Some((end, _)) = &self.pipe {
            let mut buffer = [0u8; 64];
            // SAFETY: the buffer and its size.
            while unsafe { libc::read(end.as_raw_fd(), buffer.as_mut_ptr().cast(), 64) } > 0 {}
        }
        self.pending.store(false, Ordering::SeqCst);
    }

    /// In a forked child: a new queue in the place of the one that was not inherited.
    pub fn after_fork(&self, queue: Queue) -> io::Result<()> {
        match &self.pipe {
            None => add_user_event(&queue)?,
            Some((end, other)) => {
                let new = pipe()?;
                // SAFETY: no memory is passed; the old ends, which are shared with the parent, are replaced.
                unsafe {
                    check(libc::dup2(new.0.as_raw_fd(), end.as_raw_fd()))?;
                    check(libc::dup2(new.1.as_raw_fd(), other.as_raw_fd()))?;
                    for fd in [end, other] {
                        libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC);
                    }
                }
                add_pipe(&queue, end.as_raw_fd())?;
            }
        }
        let old = self
            .queue
            .swap(Box::into_raw(Box::new(queue)), Ordering::AcqRel);
        // SAFETY: from `Box::into_raw`, and not referred to any more.
        unsafe { Box::from_raw(old) }.abandon();
        if self.pending.load(Ordering::SeqCst) {
            self.trigger();
        }
        Ok(())
    }

    fn trigger(&self) {
        match &self.pipe {
            None => {
                let change = Kevent::new(WAKE, EVFILT_USER, 0).notes(NOTE_TRIGGER);
                // It cannot fail but in a forked child before its queue is made anew, which looks at the flag.
                let _ = self.queue().kevent(&[change], &mut [], Some(0));
            }
            Some((_, end)) => {
                // SAFETY: one byte. It can fail only when the pipe is full: then it is readable.
                unsafe { libc::write(end.as_raw_fd(), c"w".as_ptr().cast(), 1) };
            }
        }
    }
}

impl Wake for Waker {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::SeqCst) {
            self.trigger();
        }
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // SAFETY: from `Box::into_raw`, and nobody refers to it any more.
        drop(unsafe { Box::from_raw(*self.queue.get_mut()) });
    }
}
