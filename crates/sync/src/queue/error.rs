//! Why a put or a get did not happen.

use gevent_hub_core::hub::Interrupted;
use std::fmt;

/// Why an item was not put; it comes back.
pub enum PutError<T> {
    /// There is no room, or there was none for so long.
    Full(T),
    /// The queue is closed.
    Closed(T),
    /// The fiber was interrupted. `None`: the queue had taken the item before, and keeps it.
    Interrupted(Option<T>, Interrupted),
}

/// Why no item was gotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GetError {
    /// There is none, or there was none for so long.
    Empty,
    /// The queue is closed and empty.
    Closed,
    /// The fiber was interrupted. An item that it was about to get is in the queue again.
    Interrupted(Interrupted),
}

impl<T> PutError<T> {
    /// The item, unless the queue has it.
    pub fn into_item(self) -> Option<T> {
        match self {
            PutError::Full(item) | PutError::Closed(item) => Some(item),
            PutError::Interrupted(item, _) => item,
        }
    }
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PutError::Full(_) => "Full(..)",
            PutError::Closed(_) => "Closed(..)",
            PutError::Interrupted(Some(_), _) => "Interrupted(Some(..))",
            PutError::Interrupted(None, _) => "Interrupted(None)",
        })
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PutError::Full(_) => f.write_str("the queue is full"),
            PutError::Closed(_) => f.write_str("the queue is closed"),
            PutError::Interrupted(_, i) => i.fmt(f),
        }
    }
}

impl<T> std::error::Error for PutError<T> {}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GetError::Empty => f.write_str("the queue is empty"),
            GetError::Closed => f.write_str("the queue is closed and empty"),
            GetError::Interrupted(i) => i.fmt(f),
        }
    }
}

impl std::error::Error for GetError {}
