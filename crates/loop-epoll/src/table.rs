//! The table of descriptors: who watches each, and what the kernel was told of it.

use gevent_hub_core::event_loop::{Interest, Key, Mode, Readiness};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::os::fd::RawFd;

/// One registration.
#[derive(Clone, Copy)]
pub struct Watcher {
    pub key: Key,
    pub want: Interest,
    pub mode: Mode,
}

/// The place of a descriptor in one of the two epoll sets.
#[derive(Clone, Copy, Default)]
pub struct Place {
    pub armed: bool,
    /// Carried by its events; another one after each removal, so that events of a description which lives
    /// on under a closed number are told apart.
    pub generation: u32,
}

/// What is known of one descriptor.
#[derive(Default)]
pub struct Entry {
    pub watchers: Vec<Watcher>,
    /// Operations that wait, oldest first.
    pub ops: Vec<Key>,
    pub edge: Place,
    pub level: Place,
}

impl Entry {
    pub fn place(&mut self, mode: Mode) -> &mut Place {
        match mode {
            Mode::Edge => &mut self.edge,
            Mode::Level => &mut self.level,
        }
    }

    /// The union of what the level watchers ask for.
    pub fn level_want(&self) -> Interest {
        let level = self.watchers.iter().filter(|w| w.mode == Mode::Level);
        level.fold(Readiness::NONE, |all, w| all.with(w.want))
    }

    /// Whether the edge set has a reason to hold it.
    pub fn wants_edge(&self) -> bool {
        !self.ops.is_empty() || self.watchers.iter().any(|w| w.mode == Mode::Edge)
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

pub type KeyMap<V> = HashMap<Key, V, BuildHasherDefault<KeyHasher>>;

/// All descriptors, by number, and the descriptor of each key.
#[derive(Default)]
pub struct Table {
    entries: Vec<Entry>,
    pub fds: KeyMap<RawFd>,
}

impl Table {
    /// The entry of a non-negative `fd`.
    pub fn entry(&mut self, fd: RawFd) -> &mut Entry {
        let at = fd as usize;
        if at >= self.entries.len() {
            self.entries.resize_with(at + 1, Entry::default);
        }
        &mut self.entries[at]
    }

    /// The entry of `fd`, if it ever had one.
    pub fn get(&mut self, fd: RawFd) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(fd).ok()?)
    }

    /// All descriptors that have or had something.
    pub fn all(&mut self) -> impl Iterator<Item = (RawFd, &mut Entry)> {
        self.entries
            .iter_mut()
            .enumerate()
            .map(|(fd, e)| (fd as RawFd, e))
    }
}
