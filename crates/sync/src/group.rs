//! [`Group`] and [`Pool`]: tasks that belong together.

use crate::event::Event;
use crate::semaphore::Semaphore;
use gevent_hub_core::cell::LocalCell;
use gevent_hub_core::hub::Interrupted;
use gevent_hub_core::slab::Slab;
use gevent_hub_core::task::{self, JoinError, JoinHandle, TaskRef};
use std::rc::Rc;
use std::time::Duration;

struct Members {
    tasks: LocalCell<Slab<Option<TaskRef>>>,
    empty: Event,
}

/// Takes a task out of its group when it is over, or never begins.
struct Membership {
    group: Rc<Members>,
    key: gevent_hub_core::event_loop::Key,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let (task, last) = self
            .group
            .tasks
            .with(|t| (t.remove(self.key), t.is_empty()));
        drop(task);
        if last {
            self.group.empty.set();
        }
    }
}

/// Tasks of this thread's runtime that can be waited for, or interrupted, all at once. A task leaves the
/// group when it is over.
#[derive(Clone)]
pub struct Group(Rc<Members>);

impl Default for Group {
    fn default() -> Self {
        Self::new()
    }
}

impl Group {
    /// An empty group.
    pub fn new() -> Self {
        let empty = Event::new();
        empty.set();
        Group(Rc::new(Members {
            tasks: LocalCell::default(),
            empty,
        }))
    }

    /// How many tasks are not over.
    pub fn len(&self) -> usize {
        self.0.tasks.with(|t| t.len())
    }

    /// Whether all are over.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts a task in the group. The handle may be dropped.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn spawn<T: 'static>(&self, f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        self.0.empty.clear();
        let key = self.0.tasks.with(|t| t.insert(None));
        let membership = Membership {
            group: self.0.clone(),
            key,
        };
        let handle = task::spawn(move || {
            let _membership = membership;
            f()
        });
        let member = handle.task();
        self.0.tasks.with(|t| {
            if let Some(place) = t.get_mut(key) {
                *place = Some(member);
            }
        });
        handle
    }

    /// Waits until all are over, for so long, or without a limit. `false`: the time was over first.
    ///
    /// # Errors
    /// [`Interrupted`], of the waiting task.
    pub fn join(&self, timeout: Option<Duration>) -> Result<bool, Interrupted> {
        match timeout {
            Some(timeout) => self.0.empty.wait_timeout(timeout),
            None => self.0.empty.wait().map(|()| true),
        }
    }

    /// Interrupts all of them once; see [`JoinHandle::interrupt`].
    pub fn interrupt(&self) {
        let members: Vec<TaskRef> = self
            .0
            .tasks
            .with(|t| t.iter().filter_map(|(_, task)| task.clone()).collect());
        members.iter().for_each(TaskRef::interrupt);
    }

    /// Calls `f` for each item, each in a task of its own, and gives the results in the order of the items.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn map<I: IntoIterator, T: 'static>(
        &self,
        items: I,
        f: impl Fn(I::Item) -> T + 'static,
    ) -> Vec<Result<T, JoinError>>
    where
        I::Item: 'static,
    {
        let f = Rc::new(f);
        let handles: Vec<_> = items
            .into_iter()
            .map(|item| {
                let f = f.clone();
                self.spawn(move || f(item))
            })
            .collect();
        handles.into_iter().map(JoinHandle::join).collect()
    }
}

/// A [`Group`] of at most so many tasks at a time: a spawn waits for a place.
#[derive(Clone)]
pub struct Pool {
    group: Group,
    places: Rc<Semaphore>,
}

/// Gives a place back when a task is over, or never begins.
struct Occupied(Rc<Semaphore>);

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Pool {
    /// Of at most `size` tasks.
    ///
    /// # Panics
    /// If `size` is 0: nothing could ever run.
    pub fn new(size: usize) -> Self {
        assert!(size > 0, "a pool has room for a task");
        Pool {
            group: Group::new(),
            places: Rc::new(Semaphore::new(size)),
        }
    }

    /// The tasks, to wait for or to interrupt.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// How many places are free.
    pub fn free(&self) -> usize {
        self.places.available()
    }

    /// Starts a task, when there is a place.
    ///
    /// # Errors
    /// [`Interrupted`], of the task that waits for the place.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn spawn<T: 'static>(
        &self,
        f: impl FnOnce() -> T + 'static,
    ) -> Result<JoinHandle<T>, Interrupted> {
        self.places.acquire()?;
        let occupied = Occupied(self.places.clone());
        Ok(self.group.spawn(move || {
            let _occupied = occupied;
            f()
        }))
    }

    /// Calls `f` for each item, at most [`new`](Self::new)'s `size` at a time, and gives the results in the
    /// order of the items.
    ///
    /// # Errors
    /// [`Interrupted`] while it waited for a place; what was started goes on.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn map<I: IntoIterator, T: 'static>(
        &self,
        items: I,
        f: impl Fn(I::Item) -> T + 'static,
    ) -> Result<Vec<Result<T, JoinError>>, Interrupted>
    where
        I::Item: 'static,
    {
        let f = Rc::new(f);
        let handles = items
            .into_iter()
            .map(|item| {
                let f = f.clone();
                self.spawn(move || f(item))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(handles.into_iter().map(JoinHandle::join).collect())
    }
}
