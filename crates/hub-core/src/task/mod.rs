//! Tasks: the hub's embedder for Rust programs.
//!
//! A [`Runtime`] runs the scheduler on the thread's own stack, so the root fiber is the hub; every task, the
//! one of [`Runtime::block_on`] included, is a fiber on a pooled stack. Tasks of one runtime share its thread
//! and switch only where they wait, so they need no locks among themselves.
//!
//! # Interruption
//! A task is never dropped half-way and never unwound by force. [`JoinHandle::interrupt`] makes its
//! present park, or else its next one, end with [`Interrupted`]; the task unwinds by returning, as far as it
//! likes. A runtime that is dropped interrupts every task that is left at each of its parks and runs it to
//! its end. One that has refused a thousand interruptions is left alone; one that has not ended after the
//! [grace](Runtime::set_grace) is abandoned: its stack and all that is on it are leaked, because somebody
//! may still point there.
//!
//! While a panic unwinds, parks of that task end at once with [`Interrupted`]: the count of panics belongs
//! to the thread, so another fiber must not run meanwhile.

mod inbox;
mod join;
mod runtime;
#[cfg(test)]
mod tests;

pub use inbox::Spawner;
pub use join::{JoinError, JoinHandle, TaskRef};
pub use runtime::{Runtime, run};

use crate::hub::{Hub, Interrupted};
use crate::reactor::{Nanos, WatcherId, WatcherKind};
use std::io;
use std::time::Duration;

/// Starts a task of the running runtime. It begins when the running one waits.
///
/// # Panics
/// Outside of a runtime.
pub fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    Builder::new().spawn(f)
}

/// How a task is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Builder {
    stack_size: Option<usize>,
}

impl Builder {
    /// The defaults.
    pub const fn new() -> Self {
        Builder { stack_size: None }
    }

    /// Asks for a stack of at least so many bytes of address space.
    #[must_use]
    pub const fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// As [`spawn`].
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn spawn<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        runtime::with_current(|shared| shared.spawn(f, self.stack_size))
    }
}

/// Sleeps; other tasks run meanwhile. A zero `duration` lets each of them have a turn.
///
/// # Errors
/// [`Interrupted`].
///
/// # Panics
/// On a thread without a hub.
pub fn sleep(duration: Duration) -> Result<(), Interrupted> {
    with_hub(|hub| {
        if duration.is_zero() {
            return hub.yield_now();
        }
        hub.sleep_until(after(hub, duration))
    })
}

/// Lets every other runnable task have its turn.
///
/// # Errors
/// [`Interrupted`].
///
/// # Panics
/// On a thread without a hub.
pub fn yield_now() -> Result<(), Interrupted> {
    with_hub(Hub::yield_now)
}

/// Waits for a signal of the process. Signals that come while nobody waits have their usual effect.
///
/// # Errors
/// `EINVAL` for a signal that cannot be caught; an interruption is an error of kind `Other` around
/// [`Interrupted`].
///
/// # Panics
/// On a thread without a hub.
pub fn wait_signal(signum: i32) -> io::Result<()> {
    /// Frees the watcher on every way out.
    struct Watching<'h>(&'h Hub, WatcherId);
    impl Drop for Watching<'_> {
        fn drop(&mut self) {
            self.0.reactor().remove(self.1);
        }
    }
    with_hub(|hub| {
        let park = hub.prepare();
        let kind = WatcherKind::Signal { signum };
        let watching = Watching(hub, hub.reactor().add(kind, park.token().0 as usize));
        hub.reactor().start(watching.1)?;
        park.wait(None).map(drop).map_err(io::Error::other)
    })
}

fn with_hub<R>(f: impl FnOnce(&Hub) -> R) -> R {
    Hub::with(|hub| f(hub.expect("only a fiber of a hub can wait on it")))
}

/// The moment `duration` from now; one too far for the clock never comes.
fn after(hub: &Hub, duration: Duration) -> Nanos {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    hub.reactor().clock_now().saturating_add(nanos)
}
