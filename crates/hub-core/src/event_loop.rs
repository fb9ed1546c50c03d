//! The contract between the [`Reactor`](crate::reactor) and a backend: epoll, io_uring, kqueue, or a fake.
//!
//! A backend watches descriptors, runs operations and waits; it knows nothing of timers, signals,
//! priorities, reference counts or fibers. Those live once, above this trait, so that their semantics
//! cannot differ between loops. The trait is object-safe; a `Loop` stays on the thread that made it,
//! several may live on one thread, and it may be called from any stack of that thread.

use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;

/// Names a registration or an operation: a slab index in the low half, its generation in the high half.
///
/// Never a pointer, so that an event which arrives after its owner is gone is recognised and dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key(pub u64);

impl Key {
    /// Puts a key together from a slab `index` and the `generation` of that slot.
    pub const fn new(index: u32, generation: u32) -> Self {
        Key((generation as u64) << 32 | index as u64)
    }

    /// The slab index.
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// The generation of the slot when the key was given out.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What a watcher wants to hear of, or an event reports, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Readiness(pub u8);

/// What a registration asks for: [`Readiness::READ`], [`Readiness::WRITE`] or both.
pub type Interest = Readiness;

impl Readiness {
    /// Nothing.
    pub const NONE: Self = Readiness(0);
    /// Data, a connection, or an end of file can be read.
    pub const READ: Self = Readiness(1);
    /// There is room to write, or a connect has finished.
    pub const WRITE: Self = Readiness(2);
    /// The peer shut down its sending side (EPOLLRDHUP, EV_EOF).
    pub const RDHUP: Self = Readiness(4);
    /// Both directions are down (EPOLLHUP).
    pub const HUP: Self = Readiness(8);
    /// An error is pending on the descriptor (EPOLLERR).
    pub const ERR: Self = Readiness(16);
    /// Urgent data (EPOLLPRI).
    pub const PRI: Self = Readiness(32);

    /// The union of both.
    pub const fn with(self, other: Self) -> Self {
        Readiness(self.0 | other.0)
    }

    /// `self` without the bits of `other`.
    pub const fn without(self, other: Self) -> Self {
        Readiness(self.0 & !other.0)
    }

    /// Whether any bit of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether no bit is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// How often a registration reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// At each poll, for as long as the descriptor is ready.
    Level,
    /// Once for each change; hang-ups and errors are latched.
    Edge,
}

/// How [`Loop::watch`] took a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watch {
    /// Events will come.
    Armed,
    /// The kernel does not poll such a descriptor (epoll's EPERM for regular files): it is always ready.
    AlwaysReady,
}

/// What some kernels can watch besides the readiness of descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// The end of a process: one event, which may come a moment before the process can be waited for.
    Process(i32),
    /// Changes of the file behind a descriptor: written to, truncated, renamed, removed, its attributes.
    File(RawFd),
}

/// One operation that a backend may carry out by itself. Pointers stay valid and pinned until the
/// operation's [`Event::Done`] was seen or [`Loop::cancel`] said that it is over.
#[derive(Debug)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "fields are the arguments of the system call that the variant names"
)]
pub enum Op {
    Recv {
        fd: RawFd,
        buf: *mut u8,
        len: usize,
        flags: i32,
    },
    Send {
        fd: RawFd,
        buf: *const u8,
        len: usize,
        flags: i32,
    },
    RecvMsg {
        fd: RawFd,
        msg: *mut libc::msghdr,
        flags: i32,
    },
    SendMsg {
        fd: RawFd,
        msg: *const libc::msghdr,
        flags: i32,
    },
    /// Completes with the new descriptor, close-on-exec and non-blocking.
    Accept {
        fd: RawFd,
        addr: *mut libc::sockaddr_storage,
        len: *mut libc::socklen_t,
    },
    Connect {
        fd: RawFd,
        addr: *const libc::sockaddr_storage,
        len: libc::socklen_t,
    },
    /// `offset` -1 uses and moves the file's own position.
    Read {
        fd: RawFd,
        buf: *mut u8,
        len: usize,
        offset: i64,
    },
    /// `offset` -1 uses and moves the file's own position.
    Write {
        fd: RawFd,
        buf: *const u8,
        len: usize,
        offset: i64,
    },
    Fsync {
        fd: RawFd,
        data_only: bool,
    },
    OpenAt {
        dir: RawFd,
        path: *const libc::c_char,
        flags: i32,
        mode: u32,
    },
    #[cfg(target_os = "linux")]
    Statx {
        dir: RawFd,
        path: *const libc::c_char,
        flags: i32,
        mask: u32,
        out: *mut libc::statx,
    },
    /// Completes once when the descriptor has any of `want`; the result is the poll(2) event bits.
    Poll {
        fd: RawFd,
        want: Interest,
    },
}

impl Op {
    /// The descriptor whose readiness says that the operation can go on. None for those on paths and for
    /// fsync, which no readiness helps.
    pub fn awaited_fd(&self) -> Option<RawFd> {
        match *self {
            Op::Recv { fd, .. }
            | Op::Send { fd, .. }
            | Op::RecvMsg { fd, .. }
            | Op::SendMsg { fd, .. }
            | Op::Accept { fd, .. }
            | Op::Connect { fd, .. }
            | Op::Read { fd, .. }
            | Op::Write { fd, .. }
            | Op::Poll { fd, .. } => Some(fd),
            _ => None,
        }
    }
}

/// The outcome of [`Loop::start`].
#[derive(Debug)]
pub enum Start {
    /// Over already: bytes, a descriptor, or the error.
    Done(io::Result<u32>),
    /// Under way; an [`Event::Done`] of its key will come.
    Parked,
    /// This backend cannot do it without blocking: give it to the offload pool.
    Offload,
}

/// The outcome of [`Loop::cancel`].
#[derive(Debug)]
pub enum Cancel {
    /// It did nothing, and its memory is free.
    Cancelled,
    /// It had finished, with this result; no event follows and its memory is free.
    Finished(io::Result<u32>),
    /// The kernel is still using its memory: keep it pinned until its [`Event::Done`].
    Pending,
}

/// What a poll brings.
#[derive(Debug)]
pub enum Event {
    /// A watched descriptor is ready.
    Ready(Key, Readiness),
    /// An operation is over.
    Done(Key, io::Result<u32>),
    /// The loop's [`Wake`] was used since the last poll.
    Woken,
}

/// How long [`Loop::poll`] may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// Not at all.
    Now,
    /// Until this moment, in nanoseconds of CLOCK_MONOTONIC.
    At(u64),
    /// Until an event comes.
    Forever,
}

/// How a backend carries out one kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum How {
    /// By an operation of the kernel's own.
    Native,
    /// By readiness and a non-blocking call.
    #[default]
    Emulated,
    /// Not at all: on a thread of the offload pool.
    Offloaded,
}

/// What a backend is and can do, probed when it was made.
#[derive(Clone, Debug, Default)]
pub struct Caps {
    /// `epoll`, `uring`, `kqueue`, `sim`.
    pub name: &'static str,
    /// recv, send, recvmsg, sendmsg.
    pub stream: How,
    /// accept and connect.
    pub connect: How,
    /// read and write of regular files.
    pub file: How,
    /// openat, statx and fsync.
    pub path: How,
}

/// Wakes a loop from any thread, and from a signal handler. Calls coalesce; using it after the loop is gone
/// does nothing.
pub trait Wake: Send + Sync {
    /// Makes the running, or else the next, [`Loop::poll`] return with [`Event::Woken`].
    fn wake(&self);
}

/// Counts kept by a backend, for `loop.statistics` and the benches.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Calls of [`Loop::poll`].
    pub polls: u64,
    /// Events delivered.
    pub events: u64,
    /// System calls made by the backend, waits included.
    pub syscalls: u64,
    /// What went to the kernel together with a call that was made anyway.
    pub saved: u64,
}

/// An event-loop backend. See the module's text for what it must not know.
pub trait Loop {
    /// What it is and can do.
    fn caps(&self) -> &Caps;

    /// Starts to watch `fd`. A second `watch` of the same live `key` replaces what it asked for.
    ///
    /// Several keys may watch one descriptor, with different interests and modes.
    ///
    /// # Errors
    /// What the kernel said: `EBADF` for a closed descriptor, `ENOMEM`, `ENOSPC`.
    fn watch(&mut self, fd: RawFd, key: Key, want: Interest, mode: Mode) -> io::Result<Watch>;

    /// Starts to watch something that is not a descriptor's readiness, where the kernel can: its events are
    /// [`Event::Ready`] with [`Readiness::READ`]. [`unwatch`](Self::unwatch) ends it; for a file so does the
    /// closing of the descriptor. In a forked child it is not watched any more.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`]: this backend watches descriptors only, so one has to be found that stands
    /// for the subject. `ESRCH` for a process that is gone.
    fn watch_subject(&mut self, what: Subject, key: Key) -> io::Result<()> {
        let _ = (what, key);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Stops watching; no event of `key` comes after the return.
    fn unwatch(&mut self, key: Key);

    /// Told before close(2): drops every registration and cancels every operation on `fd`, and
    /// appends the completions that this brings.
    fn fd_closing(&mut self, fd: RawFd, out: &mut Vec<Event>);

    /// Starts an operation; never blocks.
    ///
    /// # Safety
    /// `op`, and all that it points to, stays where it is until the operation is over.
    unsafe fn start(&mut self, key: Key, op: Pin<&mut Op>) -> Start;

    /// Ends the operation of `key` as soon as the kernel allows.
    fn cancel(&mut self, key: Key) -> Cancel;

    /// Waits at most once, and appends what happened. An interrupted wait is `Ok`.
    ///
    /// # Errors
    /// Only what makes the backend unusable, such as `EBADF` of its own descriptor.
    fn poll(&mut self, until: Until, out: &mut Vec<Event>) -> io::Result<()>;

    /// Its waker.
    fn waker(&self) -> Arc<dyn Wake>;

    /// In a forked child: rebuilds every kernel object without touching the parent's, and watches again
    /// what was watched. Operations under way are started again, unless the parent's kernel may be doing them and
    /// twice is wrong (a send, a write, a read at the position that both share): those end with `ECANCELED` here.
    ///
    /// # Errors
    /// As when the backend was made.
    fn after_fork(&mut self) -> io::Result<()>;

    /// A descriptor that becomes readable when the loop has something to do, if there is one. Good until the
    /// loop is dropped, in a forked child too. What is asked of the loop outside of a poll counts from the next
    /// poll on.
    fn as_raw_fd(&mut self) -> Option<RawFd>;

    /// Counts since it was made.
    fn counters(&self) -> Counters;
}
