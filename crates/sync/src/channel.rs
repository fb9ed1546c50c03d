//! [`Channel`]: from hand to hand.

use crate::queue::{Fifo, GetError, PutError, Queue};
use std::time::Duration;

/// A queue without room: each send waits for the receive that takes its item.
pub struct Channel<T>(Queue<Fifo<T>>);

impl<T> Default for Channel<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Channel<T> {
    /// A channel.
    pub fn new() -> Self {
        Channel(Queue::bounded(0))
    }

    /// Hands an item over.
    ///
    /// # Errors
    /// As [`Queue::put`].
    pub fn send(&self, item: T) -> Result<(), PutError<T>> {
        self.0.put(item)
    }

    /// Hands an item over, if somebody takes it within so long.
    ///
    /// # Errors
    /// As [`Queue::put_timeout`].
    pub fn send_timeout(&self, item: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.0.put_timeout(item, timeout)
    }

    /// Hands an item over, if somebody waits for one.
    ///
    /// # Errors
    /// As [`Queue::try_put`].
    pub fn try_send(&self, item: T) -> Result<(), PutError<T>> {
        self.0.try_put(item)
    }

    /// Takes an item.
    ///
    /// # Errors
    /// As [`Queue::get`].
    pub fn recv(&self) -> Result<T, GetError> {
        self.0.get()
    }

    /// Takes an item, if somebody has one within so long.
    ///
    /// # Errors
    /// As [`Queue::get_timeout`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.0.get_timeout(timeout)
    }

    /// Takes an item, if somebody waits with one.
    ///
    /// # Errors
    /// As [`Queue::try_get`].
    pub fn try_recv(&self) -> Result<T, GetError> {
        self.0.try_get()
    }

    /// Ends it: sends and receives fail, those that wait too. `false`: it was closed already.
    pub fn close(&self) -> bool {
        self.0.close()
    }
}
