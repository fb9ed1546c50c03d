//! kevent(2) on Linux, for tests: an emulation by epoll, timerfd, signalfd, pidfd, eventfd and inotify.
//!
//! It exists so that the kqueue loop can be run, and held to the same suites as the other loops, on Linux. It
//! is written for the rules of the man page and not for speed: each event costs a few system calls more than
//! the loops that are made for Linux.
//!
//! Every event of interest (a *knote*: a filter and an identifier) has at most one descriptor that wakes it,
//! registered edge-triggered in an epoll set of its filter. A wake only puts the knote on the active list;
//! whether there is anything to report is asked when the list is scanned, as in the BSD kernels. So an event
//! without `EV_CLEAR` is reported for as long as its condition holds, and one with it once for each wake.
//!
//! What differs from the real thing:
//! - The pending error of a socket cannot be read without clearing it, so the filter flags of an end of file
//!   by an error hold `EIO`, whatever the error is.
//! - `EVFILT_PROC` knows `NOTE_EXIT` alone, and gives the status of children only.
//! - `EVFILT_SIGNAL` blocks its signal in the calling thread, and calls its handler from within `kevent`;
//!   several of one signal between two calls count as one.
//! - That a descriptor was closed is noticed when an event of it comes, or a change.
//! - A write end that this process itself shut down is no end of file to `EVFILT_WRITE`.

mod descriptors;
mod files;
mod knote;
mod process;
mod queue;
mod registry;
mod sets;
mod signals;
mod timers;
mod user;

pub use queue::Queue;
