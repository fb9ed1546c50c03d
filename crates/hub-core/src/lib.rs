//! The hub of gevent without Python: stacks, fibers, a scheduler, the [`Loop`](event_loop::Loop)
//! contract and the reactor above it.
//!
//! A Rust program starts with a [`task::Runtime`] on one of the loops; the fake one here has virtual time,
//! so the example is over at once.
//!
//! ```
//! use gevent_hub_core::{reactor::Reactor, sim::Sim, task};
//! use std::time::Duration;
//!
//! let sim = Sim::new();
//! let runtime = task::Runtime::with_reactor(Reactor::for_tests(&sim));
//! let sum = runtime.block_on(|| {
//!     let workers: Vec<_> = (1..=3)
//!         .map(|n| {
//!             task::spawn(move || {
//!                 task::sleep(Duration::from_secs(10 * n)).unwrap();
//!                 n
//!             })
//!         })
//!         .collect();
//!     workers.into_iter().map(|w| w.join().unwrap()).sum::<u64>()
//! });
//! assert_eq!(sum, 6);
//! assert_eq!(sim.now(), 30_000_000_000);
//! ```

pub mod by_readiness;
pub mod cell;
pub mod event_loop;
pub mod fiber;
pub mod hub;
pub mod offload;
pub mod os;
pub mod reactor;
pub mod sim;
pub mod slab;
pub mod stack;
pub mod task;
pub mod timer;
