//! Descriptors that fibers wait for: [`IoHandle`], the hot system calls on it, and [`Error`].
//!
//! What the typed sockets of this crate and a binding's own sockets share. Nothing here owns a
//! descriptor. A call is tried first and waits only after EAGAIN; data is taken out of the kernel by the
//! fiber that asked for it, after its wake, so an interruption loses neither bytes nor connections.

mod calls;
mod error;
mod handle;

pub use calls::{Address, Sent};
pub use error::Error;
pub use handle::{IoHandle, Kind, deadline_after};
