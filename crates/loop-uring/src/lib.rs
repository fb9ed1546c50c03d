//! The io_uring backend of the hub.
//!
//! Readiness comes from poll requests: a multishot one for each edge-triggered registration, which costs
//! nothing in the steady state; a one-shot one for each level-triggered registration, armed again in the
//! poll after the one in which it fired (io_uring has no level-triggered requests, but arming on a ready
//! descriptor completes at once, which is the same). Operations are requests of their own.
//!
//! Nothing is handed to the kernel between two polls, except to cancel: registrations and operations wait in
//! a queue and go in with the system call of the next poll. So one call an iteration serves any number of
//! them, and what is undone before that poll costs nothing.
//!
//! - `setup`: making a ring, by what the kernel allows; what a refusal says.
//! - `ring`: the queues of the ring and the one system call.
//! - `requests`: what the ring is working on, by key and by descriptor.
//! - `turns`: which operations on a descriptor wait for each other.
//! - `sqe`: an operation as the kernel wants it.
//! - `descriptor`: what a descriptor can be asked for.
//! - `waker`, `fork_mark`: waking from other threads; noticing a fork.
//! - `uring_loop`: the [`Loop`](gevent_hub_core::event_loop::Loop) made of these.
//!
//! ```
//! use gevent_hub_core::task;
//! use gevent_loop_uring::UringLoop;
//! use std::time::Duration;
//!
//! // A kernel or a sandbox may refuse the ring; the error says which call and why.
//! if let Ok(ring) = UringLoop::new() {
//!     let slept = task::run(Box::new(ring), || {
//!         let sleeper = task::spawn(|| task::sleep(Duration::from_millis(5)));
//!         sleeper.join().unwrap()
//!     })?;
//!     assert_eq!(slept, Ok(()));
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

#![cfg(target_os = "linux")]

mod descriptor;
mod fork_mark;
mod requests;
mod ring;
mod setup;
mod sqe;
mod turns;
mod uring_loop;
mod waker;

#[doc(hidden)]
pub use setup::Lacking;
pub use setup::Refused;
pub use uring_loop::UringLoop;
