//! The small types of the reactor's interface: names, kinds, event bits, and the [`Host`].

use crate::event_loop::{Interest, Key, Readiness};
use crate::timer::Nanos;
use std::ops::{BitOr, BitOrAssign};
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Names one park of one fiber, for whoever keeps the parks; the reactor only carries it. 0 is never valid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token(pub u64);

impl Token {
    /// Puts a token together from the `index` of a park and its `generation`, which is not 0.
    pub const fn new(index: u32, generation: u32) -> Self {
        Token(Key::new(index, generation).0)
    }

    /// The index of the park.
    pub const fn index(self) -> u32 {
        Key(self.0).index()
    }

    /// Its generation.
    pub const fn generation(self) -> u32 {
        Key(self.0).generation()
    }
}

/// Why a park is over: a reason small enough to travel in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Wake {
    /// Somebody who knows why unparked it.
    Event,
    /// The descriptor it waits for is ready.
    Ready,
    /// Its deadline has passed.
    Timeout,
    /// The descriptor it waits for is being closed.
    Closed,
    /// An interruption waits for it.
    Fault,
    /// In the queue only: the reason stands with whoever keeps the parks.
    Granted,
}

/// One entry of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A park is over.
    Wake(Token, Wake),
    /// A callback of the embedder's, who knows what the word means.
    Call(usize),
    /// Only by [`Remote::push`](super::Remote::push): another thread is closing, or gives away, the descriptor
    /// of a source. Its waiters get [`Wake::Closed`], and the loop forgets it.
    Closed(SourceId),
}

/// Names a watcher; stale after [`remove`](super::Reactor::remove).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WatcherId(pub Key);

/// Names a source; stale after [`source_closing`](super::Reactor::source_closing).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SourceId(pub Key);

/// What a watcher watches: the watcher types of libev.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatcherKind {
    /// A descriptor being ready, level-triggered (ev_io).
    Io {
        /// The descriptor.
        fd: RawFd,
        /// The directions.
        want: Interest,
    },
    /// A time having passed, once or again and again (ev_timer).
    Timer {
        /// From the start, in nanoseconds.
        after: Nanos,
        /// From then on; 0 for never.
        repeat: Nanos,
    },
    /// A signal of the process (ev_signal).
    Signal {
        /// Its number.
        signum: i32,
    },
    /// A child process having ended (ev_child).
    Child {
        /// The child, or 0 for any.
        pid: i32,
        /// Whether it being stopped or continued counts too.
        trace: bool,
    },
    /// A call from another thread (ev_async).
    Async,
    /// There being nothing of the same or a higher priority to do (ev_idle).
    Idle,
    /// An iteration beginning (ev_prepare).
    Prepare,
    /// A poll being over (ev_check).
    Check,
    /// The first iteration of a forked child (ev_fork).
    Fork,
    /// The attributes of a path changing (ev_stat).
    Stat {
        /// The path, which need not exist.
        path: PathBuf,
        /// Between two looks, in nanoseconds; 0 for the default of about five seconds.
        interval: Nanos,
    },
}

/// The events of a watcher, with libev's bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Revents(pub u32);

#[allow(missing_docs, reason = "named as in libev")]
impl Revents {
    pub const NONE: Self = Revents(0);
    pub const READ: Self = Revents(0x01);
    pub const WRITE: Self = Revents(0x02);
    pub const TIMER: Self = Revents(0x100);
    pub const PERIODIC: Self = Revents(0x200);
    pub const SIGNAL: Self = Revents(0x400);
    pub const CHILD: Self = Revents(0x800);
    pub const STAT: Self = Revents(0x1000);
    pub const IDLE: Self = Revents(0x2000);
    pub const PREPARE: Self = Revents(0x4000);
    pub const CHECK: Self = Revents(0x8000);
    pub const FORK: Self = Revents(0x2_0000);
    pub const ASYNC: Self = Revents(0x8_0000);
    pub const CUSTOM: Self = Revents(0x100_0000);
    pub const ERROR: Self = Revents(0x8000_0000);
}

impl Revents {
    /// Whether any bit of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether no bit is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What `readiness` means to a level watcher: hang-ups and errors count in both directions, as in
    /// libev's backends.
    pub(crate) fn of(readiness: Readiness) -> Self {
        let broken = Readiness::HUP.with(Readiness::ERR);
        let mut r = Revents::NONE;
        if readiness.has(Readiness::READ.with(Readiness::RDHUP).with(broken)) {
            r |= Revents::READ;
        }
        if readiness.has(Readiness::WRITE.with(broken)) {
            r |= Revents::WRITE;
        }
        r
    }
}

impl BitOr for Revents {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Revents(self.0 | other.0)
    }
}

impl BitOrAssign for Revents {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// How long [`run`](super::Reactor::run) goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunMode {
    /// Until nothing is left to wait for.
    Default,
    /// One iteration, which may sleep.
    Once,
    /// One iteration that does not sleep.
    NoWait,
}

/// Who runs the reactor: the hub for Rust, the binding for Python.
///
/// The reactor holds no borrow of its state during any of these calls, so they may do anything with it:
/// start and stop watchers, run it recursively, destroy it.
pub trait Host {
    /// The callback of a watcher is due.
    fn fire(&self, id: WatcherId, data: usize, revents: Revents);

    /// An entry of the queue is due.
    fn run_entry(&self, entry: Entry);

    /// The turns of these come next and after that, in all likelihood: their memory may be fetched.
    fn expect(&self, _next: Option<Token>, _later: Option<Token>) {}

    /// How long a poll may sleep, in nanoseconds, before [`last_look`](Self::last_look) is called.
    fn patience(&self) -> Nanos {
        Nanos::MAX
    }

    /// A poll that may sleep for long is near, and the last moment to do what must not wait for its end. If
    /// that makes something due, the poll does not sleep.
    fn last_look(&self) {}

    /// A poll that may sleep begins: the place to let other threads run.
    fn before_sleep(&self);

    /// It is over.
    fn after_sleep(&self);

    /// Once an iteration, after the poll and before any callback that it brings.
    fn tick(&self) {}

    /// Asked between batches of callbacks; `false` ends the run as a break does.
    fn keep_running(&self) -> bool {
        true
    }
}

/// Counts since the reactor was made, for `loop.statistics` and the benches.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// Iterations begun.
    pub iterations: u64,
    /// Polls that were allowed to sleep.
    pub sleeps: u64,
    /// Entries of the queue run.
    pub entries: u64,
    /// Watcher callbacks run.
    pub fired: u64,
    /// Watchers that exist.
    pub watchers: usize,
    /// Timers that are pending, those of parks included.
    pub timers: usize,
    /// Sources that exist.
    pub sources: usize,
    /// Operations of the backend's own that are over: reads, writes, opens of files and the like.
    pub operations: u64,
    /// System calls that were not made: waits for a source whose descriptor was registered before, which would
    /// else have armed and disarmed it, and what the backend handed over together with another call.
    pub syscalls_saved: u64,
    /// How long the last turn took, from the end of one poll to the begin of the next, or by how much its timers
    /// were late if that is more; in nanoseconds. Events that come meanwhile have to wait so long.
    pub lag: u64,
    /// The most that it ever was.
    pub lag_max: u64,
    /// Counts of the backend.
    pub backend: crate::event_loop::Counters,
}
