//! `EVFILT_USER`. Triggering takes no lock and allocates nothing, because programs do it from other threads and
//! from signal handlers, where a system call is allowed and this has to be too.

use super::knote::Report;
use crate::sys::*;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// The state of one user event.
pub struct Slot {
    ident: usize,
    live: AtomicBool,
    triggered: AtomicBool,
    fflags: AtomicU32,
}

impl Slot {
    /// Applies `NOTE_FF*` and `NOTE_TRIGGER`.
    pub fn control(&self, notes: u32) {
        let given = notes & NOTE_FFLAGSMASK;
        match notes & NOTE_FFCTRLMASK {
            NOTE_FFAND => drop(self.fflags.fetch_and(given, Ordering::SeqCst)),
            NOTE_FFOR => drop(self.fflags.fetch_or(given, Ordering::SeqCst)),
            NOTE_FFCOPY => self.fflags.store(given, Ordering::SeqCst),
            _ => {}
        }
        if notes & NOTE_TRIGGER != 0 {
            self.triggered.store(true, Ordering::SeqCst);
        }
    }

    pub fn ask(&self, clear: bool) -> Option<Report> {
        let triggered = if clear {
            self.triggered.swap(false, Ordering::SeqCst)
        } else {
            self.triggered.load(Ordering::SeqCst)
        };
        let fflags = if triggered && clear {
            self.fflags.swap(0, Ordering::SeqCst)
        } else {
            self.fflags.load(Ordering::SeqCst)
        };
        triggered.then_some(Report {
            fflags,
            ..Report::default()
        })
    }

    pub fn is_triggered(&self) -> bool {
        self.triggered.load(Ordering::SeqCst)
    }

    /// It is deleted; its place in the list stays.
    pub fn retire(&self) {
        self.live.store(false, Ordering::SeqCst);
    }
}

struct Node {
    slot: Arc<Slot>,
    next: *mut Node,
}

/// All user events that a queue ever had, newest first; the list only grows.
pub struct Slots(AtomicPtr<Node>);

impl Slots {
    pub const fn new() -> Self {
        Slots(AtomicPtr::new(ptr::null_mut()))
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Slot>> {
        let mut at = self.0.load(Ordering::SeqCst);
        std::iter::from_fn(move || {
            // SAFETY: nodes live as long as the list, and do not change once they are in it.
            let node = unsafe { at.as_ref() }?;
            at = node.next;
            Some(&node.slot)
        })
    }

    /// The live event `ident`.
    pub fn find(&self, ident: usize) -> Option<&Arc<Slot>> {
        self.iter()
            .find(|s| s.ident == ident && s.live.load(Ordering::SeqCst))
    }

    /// A new event `ident`, of which there is none that lives; the caller alone adds.
    pub fn add(&self, ident: usize) -> Arc<Slot> {
        let dead = self.iter().find(|s| s.ident == ident);
        if let Some(slot) = dead {
            slot.triggered.store(false, Ordering::SeqCst);
            slot.fflags.store(0, Ordering::SeqCst);
            slot.live.store(true, Ordering::SeqCst);
            return slot.clone();
        }
        let slot = Arc::new(Slot {
            ident,
            live: AtomicBool::new(true),
            triggered: AtomicBool::new(false),
            fflags: AtomicU32::new(0),
        });
        let node = Box::new(Node {
            slot: slot.clone(),
            next: self.0.load(Ordering::SeqCst),
        });
        self.0.store(Box::into_raw(node), Ordering::SeqCst);
        slot
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let mut at = *self.0.get_mut();
        while !at.is_null() {
            // SAFETY: from `Box::into_raw`, each once.
            let node = unsafe { Box::from_raw(at) };
            at = node.next;
        }
    }
}
