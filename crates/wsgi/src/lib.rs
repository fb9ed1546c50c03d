//! HTTP/1.0 and 1.1 for the hub: strict request heads and body framing without I/O, and a server above it.
//!
//! What a message is worth is decided here, once, for every way in which it may have come: RFC 9112 read
//! strictly, with a limit on everything that a client may make long. What is not plainly right is a
//! [`Reject`] with the status that it is answered by, after which the connection is closed.

pub mod answer;
pub mod body;
pub mod chars;
pub mod head;
pub mod inbound;
pub mod limits;
pub mod reject;
pub mod scan;
pub mod server;
pub mod target;
pub mod tasks;
pub mod websocket;

pub use body::{BodyDecoder, Framing};
pub use head::{Field, Head, Span, Version};
pub use inbound::{Inbound, Rules};
pub use limits::{Limits, Policy};
pub use reject::Reject;
pub use scan::HeadScanner;
