//! The epoll backend of the hub.
//!
//! Two epoll sets. The main set holds a descriptor once, for everything, edge-triggered; it is told of a
//! descriptor when the first one asks and when it is closed, and of nothing between. A descriptor that only level
//! watchers ask for is there too, level-triggered. For one that both ask for there is another set, nested in the
//! main one and made when it is needed. Several keys on a descriptor are told apart here.
//!
//! Operations are tried and wait in a queue of their descriptor for the next edge; what only a blocking
//! call can do is left to the offload pool.
//!
//! - `sys`, `waker`: the system calls; waking from other threads.
//! - `interest`: readiness in the kernel's bits.
//! - `places`: which set holds a descriptor, and which registration an event is of.
//! - `epoll_loop`: the [`Loop`](gevent_hub_core::event_loop::Loop) made of these.
//!
//! ```
//! use gevent_hub_core::task;
//! use gevent_loop_epoll::EpollLoop;
//! use std::time::Duration;
//!
//! let slept = task::run(Box::new(EpollLoop::new()?), || {
//!     let sleeper = task::spawn(|| task::sleep(Duration::from_millis(5)));
//!     sleeper.join().unwrap()
//! })?;
//! assert_eq!(slept, Ok(()));
//! # Ok::<(), std::io::Error>(())
//! ```

mod epoll_loop;
mod interest;
mod places;
mod sys;
mod waker;

pub use epoll_loop::EpollLoop;
pub use gevent_hub_core::os::Refused;
