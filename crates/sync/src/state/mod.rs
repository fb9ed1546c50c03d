//! What each primitive knows, apart from who waits for it.
//!
//! These are plain values: they take no lock and wake nobody. The blocking primitives of this crate keep
//! them under their own lock; an embedder whose objects are guarded by something else (for Python's that
//! is the GIL) puts them beside its [`Links`](crate::links::Links) or [`Lines`](crate::lines::Lines).

mod flag;
mod ledger;
mod outcome;
mod ownership;
mod permits;

pub use flag::Flag;
pub use ledger::Ledger;
pub use outcome::Outcome;
pub use ownership::{NotOwner, Ownership};
pub use permits::{Permits, ReleasedTooOften};
