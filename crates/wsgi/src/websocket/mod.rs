//! WebSockets (RFC 6455, with RFC 7692's compression) for the server's side of a connection, without I/O.
//!
//! [`Decoder`] turns the client's bytes into [`Event`]s: whole messages, and what control frames say.
//! [`encode`] makes frames. What breaks the protocol is a [`Violation`] with the code to close with.

pub mod decode;
pub mod deflate;
pub mod encode;
pub mod frame;

pub use decode::{Decoder, Event};
pub use deflate::Deflate;
pub use frame::{Header, Opcode, Violation};

/// Whether an endpoint may put `code` into a Close frame (RFC 6455 §7.4, and the registry of codes that it
/// founded).
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
