//! [`Reject`]: why a request is not served, and the status that says so.

use std::fmt;

/// A request that is answered by an error and a closed connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    /// The status to answer with: 400, 413, 414, 417, 431, 501 or 505.
    pub status: u16,
    /// What was wrong, for the server's log; nothing that the client sent is in it.
    pub reason: &'static str,
}

impl Reject {
    /// 400 with this reason.
    pub const fn bad(reason: &'static str) -> Self {
        Reject {
            status: 400,
            reason,
        }
    }

    /// Another status.
    pub const fn new(status: u16, reason: &'static str) -> Self {
        Reject { status, reason }
    }

    /// The reason phrase of its status (RFC 9110 §15).
    pub const fn phrase(&self) -> &'static str {
        phrase(self.status)
    }
}

/// The reason phrase of the statuses that this crate answers with by itself.
pub const fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        400 => "Bad Request",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.phrase(), self.reason)
    }
}

impl std::error::Error for Reject {}
