//! The hub of gevent without Python: stacks, fibers, a scheduler, the [`Loop`](event_loop::Loop)
//! contract and the reactor above it.

pub mod cell;
pub mod event_loop;
pub mod fiber;
pub mod hub;
pub mod offload;
pub mod reactor;
pub mod sim;
pub mod slab;
pub mod stack;
pub mod timer;
