//! The kqueue backend of the hub, for macOS and the BSDs.
//!
//! Two queues. The edge queue holds what edge watchers and operations wait for, with `EV_CLEAR`; it is told of
//! a descriptor when the first one asks, and closing it makes the kernel forget it. The level queue, made when
//! the first level watcher starts, is nested in it: a queue is itself something to read. Two are needed because
//! a queue has one event for a filter and a descriptor. Operations are tried, and wait for the next edge.
//!
//! On Linux the same loop runs on an emulation of kevent(2), to be tested there; it is not made for use. With
//! `RUSTFLAGS='--cfg libkqueue'` it runs on libkqueue instead.
//!
//! - `kqueue_loop`: the [`Loop`](gevent_hub_core::event_loop::Loop).
//! - `plane`: one of the two queues, and what each descriptor has in it.
//! - `subjects`: processes and files, which need no descriptor to be polled.
//! - `waker`: waking from other threads.
//! - `sys`: the system calls, or what stands for them; `emulation` is that on Linux.
//!
//! ```
//! use gevent_hub_core::task;
//! use gevent_loop_kqueue::KqueueLoop;
//! use std::time::Duration;
//!
//! let slept = task::run(Box::new(KqueueLoop::new()?), || {
//!     let sleeper = task::spawn(|| task::sleep(Duration::from_millis(5)));
//!     sleeper.join().unwrap()
//! })?;
//! assert_eq!(slept, Ok(()));
//! # Ok::<(), std::io::Error>(())
//! ```

#[cfg(all(target_os = "linux", not(libkqueue)))]
mod emulation;
mod kqueue_loop;
mod plane;
mod subjects;
#[doc(hidden)]
pub mod sys;
#[cfg(test)]
mod tests;
mod waker;

pub use gevent_hub_core::os::Refused;
pub use kqueue_loop::KqueueLoop;
