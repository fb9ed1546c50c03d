//! Events, semaphores, locks, queues, channels and groups, for fibers and threads alike.
//!
//! All but [`Group`] and [`Pool`] may be shared between fibers of several hubs and threads that have none:
//! a fiber parks on its hub, a thread sleeps, and each is woken at once by whoever it is. An operation that
//! need not wait never touches a hub. Whoever waits is served in the order of coming. A fiber that is
//! interrupted just as it was granted something gives it back, to the next in the line.
//!
//! ```
//! use gevent_hub_core::task;
//! use gevent_loop_epoll::EpollLoop;
//! use gevent_sync::{Fifo, GetError, Queue};
//! use std::sync::Arc;
//!
//! let queue = Arc::new(Queue::<Fifo<u32>>::bounded(2));
//! let producer = std::thread::spawn({
//!     let queue = queue.clone();
//!     move || {
//!         (1..=10).for_each(|n| queue.put(n).unwrap());
//!         queue.close()
//!     }
//! });
//! let sum = task::run(Box::new(EpollLoop::new()?), move || {
//!     let worker = move || {
//!         let mut sum = 0;
//!         loop {
//!             match queue.get() {
//!                 Ok(n) => sum += n,
//!                 Err(GetError::Closed) => return sum,
//!                 Err(other) => panic!("{other}"),
//!             }
//!         }
//!     };
//!     let workers = [task::spawn(worker.clone()), task::spawn(worker)];
//!     workers.into_iter().map(|w| w.join().unwrap()).sum::<u32>()
//! })?;
//! assert_eq!(sum, 55);
//! producer.join().unwrap();
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! An embedder whose objects something else guards (for Python's that is the GIL) builds on the parts below:
//! [`state`] is what a primitive knows, [`links`] and [`lines`] who waits for it, who is told when, and what
//! comes of a wait; [`parker`] and [`homes`] are the ways to threads and to other hubs, [`jobs`] the work of
//! a thread pool. They hold no lock and call foreign code only where they say so.

mod async_result;
mod channel;
mod event;
mod few;
mod group;
pub mod homes;
pub mod jobs;
pub mod lines;
pub mod links;
#[cfg(all(test, loom))]
mod model;
pub mod parker;
mod queue;
mod rlock;
mod semaphore;
pub mod state;
#[cfg(all(test, not(loom)))]
mod tests;
pub mod turn;
pub mod waiters;

pub use async_result::AsyncResult;
pub use channel::Channel;
pub use event::Event;
pub use group::{Group, Pool};
pub use queue::{Container, Fifo, GetError, Lifo, Priority, PutError, Queue};
pub use rlock::{Hold, NotOwner, RLock};
pub use semaphore::{BoundedSemaphore, Permit, ReleasedTooOften, Semaphore};
pub use waiters::WaitError;
