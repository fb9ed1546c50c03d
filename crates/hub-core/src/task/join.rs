//! What a task is in memory, and [`JoinHandle`], the way to its result.

use super::runtime::Shared;
use crate::cell::LocalCell;
use crate::event_loop::Key;
use crate::fiber::Fiber;
use crate::hub::{Hub, Interrupted};
use crate::reactor::{Nanos, Token, Wake};
use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Why a task has no result.
pub enum JoinError {
    /// It panicked; this is what it panicked with.
    Panicked(Box<dyn Any + Send>),
    /// It was interrupted, or its runtime ended, before it began.
    Cancelled,
    /// There was no stack for it.
    NoStack(io::Error),
    /// Not the task, but the one that waits for it, was interrupted. The task goes on.
    Interrupted(Interrupted),
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Panicked(payload) => {
                let text = payload
                    .downcast_ref::<&str>()
                    .copied()
                    .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
                write!(f, "the task panicked: {}", text.unwrap_or("(no text)"))
            }
            JoinError::Cancelled => f.write_str("the task was cancelled before it began"),
            JoinError::NoStack(e) => write!(f, "no stack for the task: {e}"),
            JoinError::Interrupted(i) => i.fmt(f),
        }
    }
}

impl std::error::Error for JoinError {}

/// What the runtime knows of a task.
///
/// `fiber` comes first in a `repr(C)` type: a pointer to one is a pointer to the other.
#[repr(C)]
pub(super) struct Head {
    pub(super) fiber: Fiber,
    pub(super) key: Cell<Key>,
    /// The next park, or the present one, shall end with `Interrupted`.
    pub(super) interrupt: Cell<bool>,
    /// An entry that resumes it is in the queue.
    pub(super) queued: Cell<bool>,
    pub(super) done: Cell<bool>,
    /// Interruptions it has survived since the runtime began to end.
    pub(super) refused: Cell<u32>,
    /// Nobody will ask for the result.
    detached: Cell<bool>,
    pub(super) stack_size: Option<usize>,
    joiners: LocalCell<Vec<Token>>,
    runtime: Weak<Shared>,
}

/// A task without its types.
pub(super) trait Body {
    fn head(&self) -> &Head;
    /// Runs it, on its own fiber. Does not unwind.
    fn run(&self);
    /// Ends it before it began. Does not unwind.
    fn refuse(&self, why: JoinError);
}

/// A task whose result is known to be a `T`.
trait Outcome<T>: Body {
    /// The result, once.
    fn take(&self) -> Option<Result<T, JoinError>>;
}

enum Stage<F, T> {
    Waiting(F),
    Running,
    Done(Result<T, JoinError>),
    Taken,
}

#[repr(C)]
pub(super) struct Task<F, T> {
    head: Head,
    stage: LocalCell<Stage<F, T>>,
}

impl<F: FnOnce() -> T + 'static, T: 'static> Task<F, T> {
    pub(super) fn new(runtime: Weak<Shared>, f: F, stack_size: Option<usize>) -> Rc<Self> {
        Rc::new(Task {
            head: Head {
                fiber: Fiber::new(),
                key: Cell::new(Key(0)),
                interrupt: Cell::new(false),
                queued: Cell::new(false),
                done: Cell::new(false),
                refused: Cell::new(0),
                detached: Cell::new(false),
                stack_size,
                joiners: LocalCell::default(),
                runtime,
            },
            stage: LocalCell::new(Stage::Waiting(f)),
        })
    }

    fn swap(&self, stage: Stage<F, T>) -> Stage<F, T> {
        self.stage.with(|s| std::mem::replace(s, stage))
    }

    /// Keeps the result, unless nobody will ask: then it is dropped here, where a destructor may wait.
    fn settle(&self, result: Result<T, JoinError>) {
        if self.head.detached.get() {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(result)));
            self.swap(Stage::Taken);
        } else {
            self.swap(Stage::Done(result));
        }
    }
}

impl<F: FnOnce() -> T + 'static, T: 'static> Body for Task<F, T> {
    fn head(&self) -> &Head {
        &self.head
    }

    fn run(&self) {
        let Stage::Waiting(f) = self.swap(Stage::Running) else {
            return;
        };
        self.settle(catch_unwind(AssertUnwindSafe(f)).map_err(JoinError::Panicked));
    }

    fn refuse(&self, why: JoinError) {
        if let Stage::Waiting(f) = self.swap(Stage::Running) {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(f)));
            self.settle(Err(why));
        }
    }
}

impl<F: FnOnce() -> T + 'static, T: 'static> Outcome<T> for Task<F, T> {
    fn take(&self) -> Option<Result<T, JoinError>> {
        if !self.head.done.get() {
            return None;
        }
        match self.swap(Stage::Taken) {
            Stage::Done(result) => Some(result),
            _ => None,
        }
    }
}

impl Head {
    /// Marks it as over, and wakes whoever joins it.
    pub(super) fn finish(&self) {
        self.done.set(true);
        let joiners = self.joiners.take();
        if !joiners.is_empty() {
            Hub::with(|hub| {
                if let Some(hub) = hub {
                    for token in joiners {
                        hub.unpark(token, Wake::Event);
                    }
                }
            });
        }
    }

    fn ask_to_stop(&self) {
        if self.done.get() {
            return;
        }
        self.interrupt.set(true);
        if let Some(shared) = self.runtime.upgrade() {
            shared.enqueue(self);
        }
    }

    /// Parks until it is over, or the deadline. `false`: the deadline came first.
    fn wait(&self, deadline: Option<Nanos>) -> Result<bool, Interrupted> {
        if self.done.get() {
            return Ok(true);
        }
        super::with_hub(|hub| {
            let park = hub.prepare();
            let token = park.token();
            self.joiners.with(|j| j.push(token));
            let woken = park.wait(deadline);
            if !matches!(woken, Ok(Wake::Event)) {
                self.joiners.with(|j| j.retain(|t| *t != token));
            }
            woken.map(|_| self.done.get())
        })
    }
}

/// A task, without the right to its result.
#[derive(Clone)]
pub struct TaskRef(Rc<dyn Body>);

impl TaskRef {
    /// See [`JoinHandle::interrupt`].
    pub fn interrupt(&self) {
        self.0.head().ask_to_stop();
    }

    /// Whether it is over.
    pub fn is_finished(&self) -> bool {
        self.0.head().done.get()
    }

    /// See [`JoinHandle::wait`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn wait(&self) -> Result<(), Interrupted> {
        self.0.head().wait(None).map(drop)
    }
}

/// The right to a task's result. Dropped, it leaves the task running on its own.
pub struct JoinHandle<T> {
    task: Rc<dyn Outcome<T>>,
    _not_send: PhantomData<*const ()>,
}

impl<T: 'static> JoinHandle<T> {
    pub(super) fn new<F: FnOnce() -> T + 'static>(task: Rc<Task<F, T>>) -> Self {
        JoinHandle {
            task,
            _not_send: PhantomData,
        }
    }

    /// Waits for the result. Of a task that is over it is had without waiting, also outside of the runtime.
    ///
    /// # Errors
    /// [`JoinError`].
    ///
    /// # Panics
    /// When it would have to wait on a thread without a hub.
    pub fn join(self) -> Result<T, JoinError> {
        self.task
            .head()
            .wait(None)
            .map_err(JoinError::Interrupted)?;
        self.taken()
    }

    /// Waits for the result for so long; gives the handle back if the time was too short.
    ///
    /// # Errors
    /// The handle, after the time.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    pub fn join_timeout(self, timeout: Duration) -> Result<Result<T, JoinError>, Self> {
        match self.wait_timeout(timeout) {
            Ok(true) => Ok(self.taken()),
            Ok(false) => Err(self),
            Err(interrupted) => Ok(Err(JoinError::Interrupted(interrupted))),
        }
    }

    /// Waits until the task is over; its result stays.
    ///
    /// # Errors
    /// [`Interrupted`], of the waiting task.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    pub fn wait(&self) -> Result<(), Interrupted> {
        self.task.head().wait(None).map(drop)
    }

    /// [`wait`](Self::wait) for so long; whether the task is over.
    ///
    /// # Errors
    /// [`Interrupted`], of the waiting task.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, Interrupted> {
        let head = self.task.head();
        if head.done.get() {
            return Ok(true);
        }
        let deadline = super::with_hub(|hub| super::after(hub, timeout));
        head.wait(Some(deadline))
    }

    fn taken(&self) -> Result<T, JoinError> {
        self.task.take().unwrap_or(Err(JoinError::Cancelled))
    }

    /// Ends the task's present park, or its next one, with [`Interrupted`]; a task that has not begun never
    /// does. A wake that came before is delivered first: then it is the park after. Interruptions do not
    /// add up.
    pub fn interrupt(&self) {
        self.task.head().ask_to_stop();
    }

    /// Whether it is over.
    pub fn is_finished(&self) -> bool {
        self.task.head().done.get()
    }

    /// The task without its result, for those who keep many of them.
    pub fn task(&self) -> TaskRef {
        TaskRef(self.task.clone())
    }

    pub(super) fn key(&self) -> Key {
        self.task.head().key.get()
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let head = self.task.head();
        if head.done.get() {
            // Dropped here, by its owner, and not by the scheduler.
            drop(self.task.take());
        } else {
            head.detached.set(true);
        }
    }
}
