//! The table of descriptors: who watches each, and the operations that wait for it.

use super::attempt::{Try, attempt, serves};
use crate::event_loop::{Event, Interest, Key, Mode, Op, Readiness};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::fd::RawFd;

/// One registration.
#[derive(Clone, Copy, Debug)]
pub struct Watcher {
    /// Who.
    pub key: Key,
    /// For what.
    pub want: Interest,
    /// How often.
    pub mode: Mode,
}

/// What is known of one descriptor; `P` is what the backend has told its kernel.
#[derive(Default)]
pub struct Entry<P> {
    watchers: Vec<Watcher>,
    /// Operations that wait, oldest first.
    ops: Vec<Key>,
    /// The backend's own.
    pub place: P,
}

impl<P> Entry<P> {
    /// The union of what the watchers of `mode` ask for.
    pub fn want(&self, mode: Mode) -> Interest {
        let of_mode = self.watchers.iter().filter(|w| w.mode == mode);
        of_mode.fold(Readiness::NONE, |all, w| all.with(w.want))
    }

    /// Whether there is an edge watcher, or an operation that waits: these go by edges.
    pub fn wants_edge(&self) -> bool {
        !self.ops.is_empty() || self.watchers.iter().any(|w| w.mode == Mode::Edge)
    }

    /// Whether an operation waits.
    pub fn has_ops(&self) -> bool {
        !self.ops.is_empty()
    }
}

/// A hasher for keys, which are spread well by one multiplication.
#[derive(Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }

    fn write_u64(&mut self, n: u64) {
        let x = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = x ^ (x >> 32);
    }
}

/// A map by [`Key`].
pub type KeyMap<V> = HashMap<Key, V, BuildHasherDefault<KeyHasher>>;

/// An operation that waits.
struct Waiting {
    fd: RawFd,
    want: Readiness,
    op: *mut Op,
}

/// The outcome of [`Table::begin`].
#[derive(Debug)]
pub enum Begun {
    /// Over already.
    Done(io::Result<u32>),
    /// It can only be done by a call that blocks.
    Blocking,
    /// It waits in the queue of this descriptor: the kernel has to report edges of it.
    Waits(RawFd),
}

/// All descriptors, by number, and the descriptor of each key.
pub struct Table<P> {
    entries: Vec<Entry<P>>,
    fds: KeyMap<RawFd>,
    ops: KeyMap<Waiting>,
}

impl<P> Default for Table<P> {
    fn default() -> Self {
        Table {
            entries: Vec::new(),
            fds: KeyMap::default(),
            ops: KeyMap::default(),
        }
    }
}

fn canceled() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

impl<P: Default> Table<P> {
    /// The entry of a non-negative `fd`.
    pub fn entry(&mut self, fd: RawFd) -> &mut Entry<P> {
        let at = fd as usize;
        if at >= self.entries.len() {
            self.entries.resize_with(at + 1, || Entry {
                watchers: Vec::new(),
                ops: Vec::new(),
                place: P::default(),
            });
        }
        &mut self.entries[at]
    }

    /// The entry of `fd`, if it ever had one.
    pub fn get(&mut self, fd: RawFd) -> Option<&mut Entry<P>> {
        self.entries.get_mut(usize::try_from(fd).ok()?)
    }

    /// All descriptors that have or had something.
    pub fn all(&mut self) -> impl Iterator<Item = (RawFd, &mut Entry<P>)> {
        self.entries
            .iter_mut()
            .enumerate()
            .map(|(fd, e)| (fd as RawFd, e))
    }

    /// Adds a watcher of a non-negative `fd`; `key` watches nothing.
    pub fn add(&mut self, fd: RawFd, key: Key, want: Interest, mode: Mode) {
        self.fds.insert(key, fd);
        self.entry(fd).watchers.push(Watcher { key, want, mode });
    }

    /// Removes the watcher `key`; gives its descriptor and mode.
    pub fn forget(&mut self, key: Key) -> Option<(RawFd, Mode)> {
        let fd = self.fds.remove(&key)?;
        let entry = self.entry(fd);
        let at = entry.watchers.iter().position(|w| w.key == key)?;
        Some((fd, entry.watchers.swap_remove(at).mode))
    }

    /// Drops all watchers of `fd` and ends its operations with `ECANCELED`.
    pub fn close(&mut self, fd: RawFd, out: &mut Vec<Event>) {
        let Some(entry) = self.get(fd) else {
            return;
        };
        let watchers = std::mem::take(&mut entry.watchers);
        let ops = std::mem::take(&mut entry.ops);
        for w in watchers {
            self.fds.remove(&w.key);
        }
        for key in ops {
            if self.ops.remove(&key).is_some() {
                out.push(Event::Done(key, Err(canceled())));
            }
        }
    }

    /// Tells the watchers of `mode` what they asked for of `got`.
    ///
    /// An edge watcher hears only of its directions, and of hang-ups and errors; a level watcher is told all.
    pub fn tell(&mut self, fd: RawFd, mode: Mode, got: Readiness, out: &mut Vec<Event>) {
        let both = Readiness::READ.with(Readiness::WRITE);
        for w in self.entry(fd).watchers.iter().filter(|w| w.mode == mode) {
            let seen = match mode {
                Mode::Edge => got.without(both.without(w.want)),
                Mode::Level => got,
            };
            if serves(w.want, seen) {
                out.push(Event::Ready(w.key, seen));
            }
        }
    }

    /// Tries `op`, one system call; if it has to wait, it is queued for its descriptor.
    ///
    /// # Safety
    /// `op`, and all that it points to, stays where it is until the operation is over.
    pub unsafe fn begin(&mut self, key: Key, op: &mut Op) -> Begun {
        let Some(fd) = op.awaited_fd() else {
            return Begun::Blocking;
        };
        if fd < 0 {
            return Begun::Done(Err(io::Error::from_raw_os_error(libc::EBADF)));
        }
        // SAFETY: the caller's promise.
        match unsafe { attempt(op, false) } {
            Try::Done(result) => Begun::Done(result),
            Try::Blocking => Begun::Blocking,
            Try::Wait(want) => {
                self.entry(fd).ops.push(key);
                self.ops.insert(key, Waiting { fd, want, op });
                Begun::Waits(fd)
            }
        }
    }

    /// Takes an operation out of its queue, if it waits in one.
    pub fn drop_op(&mut self, key: Key) {
        if let Some(waiting) = self.ops.remove(&key) {
            self.entry(waiting.fd).ops.retain(|k| *k != key);
        }
    }

    /// Tries the operations that wait for `fd`, oldest first, until one of each direction has to wait on.
    /// Gives the number of tries, each of which is a system call.
    pub fn try_ops(&mut self, fd: RawFd, got: Readiness, out: &mut Vec<Event>) -> u64 {
        let (mut tries, mut stuck) = (0, Readiness::NONE);
        let queue = std::mem::take(&mut self.entry(fd).ops);
        let mut rest = Vec::new();
        for key in queue {
            let Some(waiting) = self.ops.get_mut(&key) else {
                continue;
            };
            if waiting.want.has(stuck) || !serves(waiting.want, got) {
                rest.push(key);
                continue;
            }
            tries += 1;
            // SAFETY: whoever began it keeps it, and what it points to, until it is over.
            let result = match unsafe { attempt(&mut *waiting.op, true) } {
                Try::Wait(want) => {
                    waiting.want = want;
                    stuck = stuck.with(want);
                    rest.push(key);
                    continue;
                }
                Try::Done(result) => result,
                Try::Blocking => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            };
            self.ops.remove(&key);
            out.push(Event::Done(key, result));
        }
        self.entry(fd).ops = rest;
        tries
    }
}
