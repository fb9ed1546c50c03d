//! The queue: one FIFO for wakes of fibers and callbacks of the embedder, so that they keep their order.

use super::{Entry, Host, Reactor};
use crate::cell::LocalCell;
use crate::timer::Nanos;
use std::cell::Cell;
use std::collections::VecDeque;

/// Entries run between two looks at the clock.
const STRIDE: u32 = 50;
/// A longer queue than this gives its memory back when it is empty.
const KEEP: usize = 4096;

pub(super) struct Queue {
    entries: LocalCell<VecDeque<Entry>>,
    /// What was put behind an entry later, and that one's number; in the order in which they are run.
    inserted: LocalCell<VecDeque<(u64, Entry)>>,
    interval: Cell<Nanos>,
    run: Cell<u64>,
    draining: Cell<bool>,
}

impl Queue {
    pub(super) fn new() -> Self {
        Queue {
            entries: LocalCell::new(VecDeque::new()),
            inserted: LocalCell::new(VecDeque::new()),
            interval: Cell::new(5_000_000),
            run: Cell::new(0),
            draining: Cell::new(false),
        }
    }

    #[inline]
    pub(super) fn push(&self, entry: Entry) {
        self.entries.with(|q| q.push_back(entry));
    }

    pub(super) fn len(&self) -> usize {
        self.entries.with(|q| q.len()) + self.inserted.with(|q| q.len())
    }

    pub(super) fn count_run(&self) -> u64 {
        self.run.get()
    }

    pub(super) fn retain(&self, mut keep: impl FnMut(&Entry) -> bool) {
        self.inserted.with(|q| q.retain(|(_, entry)| keep(entry)));
        self.entries.with(|q| q.retain(keep));
    }

    pub(super) fn clear(&self) {
        self.entries.take();
        self.inserted.take();
    }

    /// The next entry. An inserted one is not counted: the others keep their numbers.
    #[inline]
    fn pop(&self) -> Option<Entry> {
        let run = self.run.get();
        let inserted = self.inserted.with(|q| match q.front() {
            Some((number, _)) if *number <= run => q.pop_front(),
            _ => None,
        });
        if let Some((_, entry)) = inserted {
            return Some(entry);
        }
        let entry = self.entries.with(VecDeque::pop_front)?;
        self.run.set(run + 1);
        Some(entry)
    }
}

impl Reactor {
    /// Puts `entry` at the end of the queue. Only on the reactor's thread; see [`remote`](Self::remote).
    #[inline]
    pub fn push(&self, entry: Entry) {
        self.queue.push(entry);
    }

    /// The number of the entry that is last in the queue. Entries are numbered as they are put in.
    #[inline]
    pub fn last_number(&self) -> u64 {
        self.queue.run.get() + self.queue.entries.with(|q| q.len()) as u64
    }

    /// Puts `entry` right behind the entry of that number, if it waits or runs; else at the end. For what
    /// belongs to an entry and comes to be only when that has begun.
    pub fn push_after(&self, number: u64, entry: Entry) {
        let run = self.queue.run.get();
        if run < number || (run == number && self.in_queue()) {
            self.queue.inserted.with(|q| {
                let place = q.partition_point(|(before, _)| *before <= number);
                q.insert(place, (number, entry));
            });
        } else {
            self.push(entry);
        }
    }

    /// Puts `entry` in front of the queue: for what may not wait for other fibers, and starts none.
    pub fn push_first(&self, entry: Entry) {
        // The others keep their numbers.
        match self.queue.run.get().checked_sub(1) {
            Some(run) => {
                self.queue.run.set(run);
                self.queue.entries.with(|q| q.push_front(entry));
            }
            None => self.push(entry),
        }
    }

    /// How many entries wait.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// How long the queue is drained before the descriptors are looked at, in nanoseconds; the default is
    /// 5 ms, as of `sys.getswitchinterval()`, which upstream uses for the same purpose.
    pub fn set_switch_interval(&self, interval: Nanos) {
        self.queue.interval.set(interval);
    }

    /// Takes the next entry out of the queue, for a host that drains it by itself.
    #[inline]
    pub fn pop_entry(&self) -> Option<Entry> {
        self.queue.pop()
    }

    /// Runs entries, those added meanwhile too, until none is left or the switch interval is over.
    pub(super) fn drain(&self, host: &dyn Host) {
        let outer = self.queue.draining.replace(true);
        self.drain_entries(host);
        self.queue.draining.set(outer);
    }

    /// Whether entries of the queue are being run.
    pub fn in_queue(&self) -> bool {
        self.queue.draining.get()
    }

    fn drain_entries(&self, host: &dyn Host) {
        // As upstream, the interval is counted from the time that the iteration knows.
        let until = self.now.get().saturating_add(self.queue.interval.get());
        let mut stride = STRIDE;
        while let Some(entry) = self.queue.pop() {
            host.run_entry(entry);
            stride -= 1;
            if stride == 0 {
                stride = STRIDE;
                if self.clock.now() >= until || !host.keep_running() {
                    return;
                }
            }
        }
        self.queue.entries.with(|q| {
            if q.capacity() > KEEP && q.is_empty() {
                q.shrink_to(KEEP / 4);
            }
        });
    }
}
