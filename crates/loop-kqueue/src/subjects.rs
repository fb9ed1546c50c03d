//! Who watches which process or file.

use crate::sys::*;
use gevent_hub_core::by_readiness::KeyMap;
use gevent_hub_core::event_loop::{Event, Key, Readiness, Subject};
use std::collections::HashMap;
use std::os::fd::RawFd;

/// What happens to a file that a watcher of it hears of.
const CHANGES: u32 =
    NOTE_DELETE | NOTE_WRITE | NOTE_EXTEND | NOTE_ATTRIB | NOTE_LINK | NOTE_RENAME | NOTE_REVOKE;

/// The event of a subject: its identifier and its filter.
type Name = (usize, i16);

fn name(what: Subject) -> Name {
    match what {
        Subject::Process(pid) => (pid as usize, EVFILT_PROC),
        Subject::File(fd) => (fd as usize, EVFILT_VNODE),
    }
}

/// The change that has a queue watch it.
pub fn adding(what: Subject) -> Kevent {
    let (ident, filter) = name(what);
    match what {
        Subject::Process(_) => Kevent::new(ident, filter, EV_ADD | EV_ONESHOT).notes(NOTE_EXIT),
        Subject::File(_) => Kevent::new(ident, filter, EV_ADD | EV_CLEAR).notes(CHANGES),
    }
}

#[derive(Default)]
pub struct Subjects {
    keys: HashMap<Name, Vec<Key>>,
    names: KeyMap<Vec<Name>>,
}

impl Subjects {
    pub fn add(&mut self, what: Subject, key: Key) {
        let name = name(what);
        self.keys.entry(name).or_default().push(key);
        self.names.entry(key).or_default().push(name);
    }

    /// Forgets `key`; gives the changes that have the queue forget what nobody else watches.
    pub fn remove(&mut self, key: Key) -> Vec<Kevent> {
        let mut changes = Vec::new();
        for name in self.names.remove(&key).unwrap_or_default() {
            if self.forget(name, key) {
                changes.push(Kevent::new(name.0, name.1, EV_DELETE));
            }
        }
        changes
    }

    fn forget(&mut self, name: Name, key: Key) -> bool {
        let Some(keys) = self.keys.get_mut(&name) else {
            return false;
        };
        keys.retain(|k| *k != key);
        let last = keys.is_empty();
        if last {
            self.keys.remove(&name);
        }
        last
    }

    /// A descriptor is about to be closed: the queue forgets the file by itself.
    pub fn close(&mut self, fd: RawFd) {
        self.drop_name((fd as usize, EVFILT_VNODE));
    }

    fn drop_name(&mut self, name: Name) -> Vec<Key> {
        let keys = self.keys.remove(&name).unwrap_or_default();
        for key in &keys {
            if let Some(names) = self.names.get_mut(key) {
                names.retain(|n| *n != name);
                if names.is_empty() {
                    self.names.remove(key);
                }
            }
        }
        keys
    }

    /// Tells whoever watches what the event is of. A process ends once.
    pub fn tell(&mut self, event: &Kevent, out: &mut Vec<Event>) {
        let name = (event.ident, event.filter);
        let keys = if event.filter == EVFILT_PROC {
            self.drop_name(name)
        } else {
            self.keys.get(&name).cloned().unwrap_or_default()
        };
        out.extend(keys.into_iter().map(|k| Event::Ready(k, Readiness::READ)));
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
