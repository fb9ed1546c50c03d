//! [`Spawner`]: tasks that other threads start.

use crate::reactor::{Entry, Remote};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// Jobs on their way to a runtime; `None` once it is gone.
pub(super) struct Inbox(Mutex<Option<VecDeque<Job>>>);

impl Inbox {
    pub(super) fn new() -> Self {
        Inbox(Mutex::new(Some(VecDeque::new())))
    }

    /// The oldest job.
    pub(super) fn pop(&self) -> Option<Job> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.as_mut()?.pop_front()
    }

    /// Takes no more; drops what is left.
    pub(super) fn close(&self) {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(jobs);
    }
}

/// Starts tasks of a runtime from any thread.
#[derive(Clone)]
pub struct Spawner {
    pub(super) inbox: Arc<Inbox>,
    pub(super) remote: Arc<Remote>,
}

impl Spawner {
    /// Starts a task; its panic is dropped. `false`: the runtime is gone, and so is `f`.
    pub fn spawn(&self, f: impl FnOnce() + Send + 'static) -> bool {
        {
            let mut jobs = self.inbox.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(jobs) = jobs.as_mut() else {
                return false;
            };
            jobs.push_back(Box::new(f));
        }
        self.remote.push(Entry::Call(super::runtime::INBOX))
    }
}
