//! What the loop was asked for and has not finished: registrations and operations, found by key, by
//! descriptor, and by the user data of their completions.

use gevent_hub_core::event_loop::{Interest, Key, Mode, Op};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::os::fd::RawFd;

/// What a request is for.
#[derive(Clone, Copy)]
pub(crate) enum What {
    /// The slot is free.
    Free,
    /// A registration.
    Watch {
        key: Key,
        want: Interest,
        mode: Mode,
    },
    /// An operation; `op` is pinned by the contract until it is over.
    Op { key: Key, op: *mut Op },
    /// Nobody wants it any more, but the kernel still has it.
    Dead,
}

/// Where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// In the queue for the next poll.
    Queued,
    /// With the kernel.
    Kernel,
    /// A level-triggered registration that fired: the next poll arms it again.
    Resting,
    /// Behind an operation of its kind on the same descriptor: see [`crate::turns`].
    Waiting,
}

/// One request.
pub(crate) struct Request {
    pub(crate) what: What,
    pub(crate) phase: Phase,
    pub(crate) fd: RawFd,
    /// A registration: the kernel's poll is (to be) a multishot one.
    pub(crate) multishot: bool,
    /// An operation: it waits for readiness, by a poll in its place.
    pub(crate) polling: bool,
    /// An operation that is being cancelled.
    pub(crate) cancelling: bool,
    /// An operation that a worker of the kernel's does, because an attempt that must not block cannot.
    pub(crate) forced: bool,
    generation: u32,
    next: u32,
    previous: u32,
}

const NONE: u32 = u32::MAX;

/// What is known of a descriptor.
#[derive(Clone, Copy)]
struct Descriptor {
    /// The newest request, and the oldest.
    first: u32,
    last: u32,
    /// The last receive left nothing in the socket.
    drained: bool,
}

/// Keys are well spread already; this only mixes their two halves.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are hashed as one u64")
    }

    fn write_u64(&mut self, n: u64) {
        let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = n ^ n >> 32;
    }
}

type ByKey = HashMap<Key, u32, BuildHasherDefault<KeyHasher>>;

/// All requests of a loop.
#[derive(Default)]
pub(crate) struct Requests {
    all: Vec<Request>,
    free: Vec<u32>,
    descriptors: Vec<Descriptor>,
    watches: ByKey,
    ops: ByKey,
}

impl Requests {
    /// Adds a request for `fd` (negative: for none), to be queued.
    pub(crate) fn insert(&mut self, fd: RawFd, what: What) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.all.push(Request {
                what: What::Free,
                phase: Phase::Queued,
                fd: -1,
                multishot: false,
                polling: false,
                cancelling: false,
                forced: false,
                generation: 0,
                next: NONE,
                previous: NONE,
            });
            self.all.len() as u32 - 1
        });
        match what {
            What::Watch { key, .. } => self.watches.insert(key, index),
            What::Op { key, .. } => self.ops.insert(key, index),
            _ => None,
        };
        let next = self.descriptor(fd).map_or(NONE, |d| {
            if d.first == NONE {
                d.last = index;
            }
            std::mem::replace(&mut d.first, index)
        });
        if next != NONE {
            self.all[next as usize].previous = index;
        }
        let r = &mut self.all[index as usize];
        (r.what, r.phase, r.fd, r.next, r.previous) = (what, Phase::Queued, fd, next, NONE);
        (r.multishot, r.polling) = (false, false);
        (r.cancelling, r.forced) = (false, false);
        index
    }

    /// Frees the slot of `index`.
    pub(crate) fn remove(&mut self, index: u32) {
        self.forget_key(index);
        let r = &mut self.all[index as usize];
        r.what = What::Free;
        r.generation = r.generation.wrapping_add(1) & (u32::MAX >> 1);
        let (fd, next, previous) = (r.fd, r.next, r.previous);
        if next != NONE {
            self.all[next as usize].previous = previous;
        } else if let Some(d) = self.descriptor(fd) {
            d.last = previous;
        }
        if previous != NONE {
            self.all[previous as usize].next = next;
        } else if let Some(d) = self.descriptor(fd) {
            d.first = next;
        }
        self.free.push(index);
    }

    /// Nobody wants `index` any more; it stays until the kernel has given it back.
    pub(crate) fn kill(&mut self, index: u32) {
        self.forget_key(index);
        self.all[index as usize].what = What::Dead;
    }

    fn forget_key(&mut self, index: u32) {
        match self.all[index as usize].what {
            What::Watch { key, .. } => self.watches.remove(&key),
            What::Op { key, .. } => self.ops.remove(&key),
            _ => None,
        };
    }

    fn descriptor(&mut self, fd: RawFd) -> Option<&mut Descriptor> {
        let at = usize::try_from(fd).ok()?;
        if at >= self.descriptors.len() {
            self.descriptors.resize(
                at + 1,
                Descriptor {
                    first: NONE,
                    last: NONE,
                    drained: false,
                },
            );
        }
        Some(&mut self.descriptors[at])
    }

    /// Whether the last receive from `fd` left nothing.
    pub(crate) fn drained(&self, fd: RawFd) -> bool {
        usize::try_from(fd)
            .ok()
            .and_then(|at| self.descriptors.get(at))
            .is_some_and(|d| d.drained)
    }

    /// Notes whether the last receive from `fd` left nothing.
    pub(crate) fn set_drained(&mut self, fd: RawFd, drained: bool) {
        // Any number may be said to be closed: none is given room for that.
        let known = usize::try_from(fd).is_ok_and(|at| at < self.descriptors.len());
        if (drained || known)
            && let Some(d) = self.descriptor(fd)
        {
            d.drained = drained;
        }
    }

    /// The requests for `fd`, dead ones included, newest first.
    pub(crate) fn of_fd(&self, fd: RawFd) -> Vec<u32> {
        let first = self.ends_of(fd).map_or(NONE, |d| d.first);
        self.chain(first, |r| r.next).collect()
    }

    /// The same, oldest first.
    pub(crate) fn oldest(&self, fd: RawFd) -> impl Iterator<Item = u32> {
        let last = self.ends_of(fd).map_or(NONE, |d| d.last);
        self.chain(last, |r| r.previous)
    }

    /// The requests for the descriptor of `index` that came before it, newest first.
    pub(crate) fn older(&self, index: u32) -> impl Iterator<Item = u32> {
        self.chain(self.peek(index).next, |r| r.next)
    }

    fn ends_of(&self, fd: RawFd) -> Option<&Descriptor> {
        self.descriptors.get(usize::try_from(fd).ok()?)
    }

    fn chain(&self, first: u32, next: impl Fn(&Request) -> u32) -> impl Iterator<Item = u32> {
        let some = |i: u32| Some(i).filter(|&i| i != NONE);
        std::iter::successors(some(first), move |&i| some(next(self.peek(i))))
    }

    pub(crate) fn peek(&self, index: u32) -> &Request {
        &self.all[index as usize]
    }

    /// The live indices, dead ones included.
    pub(crate) fn indices(&self) -> Vec<u32> {
        let live = |&i: &u32| !matches!(self.all[i as usize].what, What::Free);
        (0..self.all.len() as u32).filter(live).collect()
    }

    pub(crate) fn watch(&self, key: Key) -> Option<u32> {
        self.watches.get(&key).copied()
    }

    pub(crate) fn op(&self, key: Key) -> Option<u32> {
        self.ops.get(&key).copied()
    }

    pub(crate) fn has_ops(&self) -> bool {
        !self.ops.is_empty()
    }

    pub(crate) fn get(&mut self, index: u32) -> &mut Request {
        &mut self.all[index as usize]
    }

    /// The name of `index` in entries and completions. Below [`RESERVED`].
    pub(crate) fn user_data(&self, index: u32) -> u64 {
        u64::from(self.all[index as usize].generation) << 32 | u64::from(index)
    }

    /// The index that `user_data` names, if it is not gone.
    pub(crate) fn find(&self, user_data: u64) -> Option<u32> {
        let r = self.all.get(user_data as u32 as usize)?;
        (u64::from(r.generation) == user_data >> 32 && !matches!(r.what, What::Free))
            .then_some(user_data as u32)
    }
}

/// User data from here on are the loop's own: generations have 31 bits.
pub(crate) const RESERVED: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;
    use gevent_hub_core::event_loop::Readiness;

    fn watch(n: u64) -> What {
        What::Watch {
            key: Key(n),
            want: Readiness::READ,
            mode: Mode::Edge,
        }
    }

    #[test]
    fn requests_are_found_by_key_by_descriptor_and_by_user_data() {
        let mut all = Requests::default();
        let a = all.insert(5, watch(1));
        let b = all.insert(5, watch(2));
        let c = all.insert(-100, watch(3));
        assert_eq!(
            (all.watch(Key(1)), all.watch(Key(3)), all.op(Key(1))),
            (Some(a), Some(c), None)
        );
        assert_eq!(all.of_fd(5), vec![b, a]);
        assert_eq!(all.of_fd(6), vec![]);
        all.set_drained(i32::MAX - 1, false);
        assert_eq!(all.descriptors.len(), 6);
        let old = all.user_data(a);
        all.remove(a);
        assert_eq!(
            (all.find(old), all.watch(Key(1)), all.of_fd(5)),
            (None, None, vec![b])
        );
        let again = all.insert(5, watch(1));
        assert_eq!(again, a, "the slot is used again");
        assert_ne!(all.user_data(again), old);
        assert_eq!(all.find(old), None);
        assert!(all.user_data(again) < RESERVED);
    }

    #[test]
    fn removal_from_the_middle_and_the_start_keeps_the_list() {
        let mut all = Requests::default();
        let n: Vec<u32> = (0..4).map(|k| all.insert(0, watch(k))).collect();
        all.remove(n[1]);
        assert_eq!(all.of_fd(0), vec![n[3], n[2], n[0]]);
        all.remove(n[3]);
        all.kill(n[2]);
        assert_eq!(all.of_fd(0), vec![n[2], n[0]]);
        assert_eq!(all.watch(Key(2)), None);
        assert_eq!(all.indices().len(), 2);
    }
}
