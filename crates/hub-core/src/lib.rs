//! The hub of gevent without Python: stacks, fibers, a scheduler, the [`Loop`](event_loop::Loop)
//! contract and the reactor above it.

pub mod event_loop;
pub mod fiber;
pub mod stack;
