//! [`Group`]: one fiber that waits for several greenlets.

use crate::hub::Waiter;
use pyo3::ffi::PyObject;
use std::cell::{Cell, RefCell};

/// Collects greenlets as they end.
#[derive(Default)]
pub struct Group {
    /// Those that have ended, in order; owned references.
    pub ended: RefCell<Vec<*mut PyObject>>,
    /// The park to end when there are `wanted` of them.
    pub waiter: Cell<Option<Waiter>>,
    /// How many the waiter wants.
    pub wanted: Cell<usize>,
    /// One of its greenlets is told in turn with callables, so it hears of that one only when this comes up in
    /// the queue. Of later ends it must not hear before.
    pub in_turn: Cell<bool>,
}

impl Group {
    /// Takes the reference `greenlet`; returns the park that is over by it.
    pub fn add(&self, greenlet: *mut PyObject) -> Option<Waiter> {
        let n = {
            let mut ended = self.ended.borrow_mut();
            ended.push(greenlet);
            ended.len()
        };
        if n >= self.wanted.get() {
            self.waiter.take()
        } else {
            None
        }
    }
}
