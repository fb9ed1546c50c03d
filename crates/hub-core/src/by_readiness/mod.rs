//! What the backends that wait for readiness have in common: who watches which descriptor, and operations
//! that are tried and wait in a queue of their descriptor.
//!
//! A backend tells its kernel what a descriptor's entry wants, and brings what the kernel said; which keys
//! hear of it, and which operations are tried, is decided here.

mod attempt;
mod table;

pub use attempt::serves;
pub use table::{Begun, Entry, KeyMap, Table, Watcher};
