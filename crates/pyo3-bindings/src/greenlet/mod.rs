//! Greenlets: the raw type, switching, and what the rest of the binding builds on.
//!
//! The interface for the other modules of this crate:
//!
//! * [`ThreadData::get`](crate::thread_data::ThreadData::get): the running thread; `current`, `main`,
//!   `installed`, `hub`, `drop_later`.
//! * [`ThreadData::install`](crate::thread_data::ThreadData::install): before Python runs on behalf of a
//!   greenlet after a native transfer.
//! * [`switch::switch_to`], [`types::throw_into`]: what `switch` and `throw` do, with tracing.
//! * [`switch::native_transfer`]: parks and resumes without Python's state or reference counts. Back from
//!   it, [`switch::has_delivery`] tells whether Python code switched here instead, and
//!   [`switch::arrive`] takes what it brought. With a tracer set
//!   ([`ThreadData::tracer`](crate::thread_data::ThreadData::tracer)), use `switch_to`, so that it sees
//!   every hop.
//! * [`native_run`](object::PyGreenlet::native_run): what a greenlet runs in place of Python's `run`.
//! * A raw type below `greenlet` is a `#[repr(C)]` struct that begins with a
//!   [`PyGreenlet`], made by [`types::make_type`] with `greenlet_type` as its base. It
//!   inherits `tp_new` (fields start as zeros) and, when it owns references, has its own `tp_traverse`
//!   and `tp_clear` that also call [`lifecycle::traverse`] and [`lifecycle::tp_clear`], and a
//!   `tp_dealloc` that is [`lifecycle::dealloc_with`]; before 3.15 also `tp_is_gc`
//!   ([`lifecycle::is_gc`]).
//! * A parent with [`Flags::DROPS_RESULTS`](object::Flags::DROPS_RESULTS) (the hub) is resumed natively
//!   when a child finishes with a value.

pub mod attributes;
pub mod capi;
mod life;
pub mod lifecycle;
pub mod module;
pub mod object;
mod rival;
pub mod switch;
mod trace;
pub mod types;
pub mod watch;

pub use object::{Flags, PyGreenlet, Status, globals};
pub use switch::{Carry, arrive, has_delivery, native_transfer, switch_to};
pub use types::{make_exception, throw_into};
