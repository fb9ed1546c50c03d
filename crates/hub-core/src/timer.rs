//! [`Timers`]: deadlines in nanoseconds, cheap when there are a million and most are cancelled.
//!
//! Deadlines later than the current tick (about a millisecond) hang in a hierarchical wheel: eight levels
//! of 64 slots, doubly linked lists through slab nodes, so that starting and stopping touch a few words.
//! What falls into the current tick stands in an indexed 4-ary heap ordered by deadline and start, so
//! that timers fire at their exact nanosecond, in order, and ties in the order in which they were started.
//!
//! What to do when one is due is the caller's: a timer carries a [`Due`].

use crate::event_loop::Key;
use crate::slab::Slab;

/// Nanoseconds of CLOCK_MONOTONIC.
pub type Nanos = u64;

/// Names one started timer; stale once it has fired or was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerKey(pub Key);

/// What a timer stands for: a tag and a word of the caller's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// The caller's tag.
    pub tag: u8,
    /// The caller's word.
    pub word: u64,
}

/// Two to this many nanoseconds are a tick (1.05 ms).
const TICK: u32 = 20;
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
/// Enough for all 44 bits of a tick.
const LEVELS: usize = 8;
const NONE: u32 = u32::MAX;
/// `place` of a node in the heap; below it a wheel slot, level * 64 + slot.
const IN_HEAP: u32 = u32::MAX;
/// Nodes looked at to find the exact next deadline in a slot before its start is good enough.
const LOOK: usize = 16;

struct Node {
    deadline: Nanos,
    /// Orders equal deadlines.
    started: u64,
    due: Due,
    /// In a slot: the neighbours. In the heap: `prev` is the position.
    prev: u32,
    next: u32,
    place: u32,
}

#[derive(Clone, Copy)]
struct HeapEntry {
    deadline: Nanos,
    started: u64,
    node: u32,
}

impl HeapEntry {
    fn before(&self, other: &HeapEntry) -> bool {
        (self.deadline, self.started) < (other.deadline, other.started)
    }
}

/// When the next timer is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// There is none.
    Never,
    /// At this moment.
    At(Nanos),
    /// Not before this moment; ask again then. (The slot that is next holds many.)
    NotBefore(Nanos),
}

/// A set of timers.
pub struct Timers {
    nodes: Slab<Node>,
    heads: Box<[u32; LEVELS * SLOTS]>,
    occupied: [u64; LEVELS],
    heap: Vec<HeapEntry>,
    /// The current tick: all earlier ones, and itself, have gone to the heap.
    tick: u64,
    started: u64,
}

impl Timers {
    /// An empty set; `now` tells it where time begins.
    pub fn new(now: Nanos) -> Self {
        Timers {
            nodes: Slab::new(),
            heads: Box::new([NONE; LEVELS * SLOTS]),
            occupied: [0; LEVELS],
            heap: Vec::new(),
            tick: now >> TICK,
            started: 0,
        }
    }

    /// How many are pending.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none is pending.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Timers for which memory is held.
    pub fn capacity(&self) -> usize {
        self.nodes.capacity()
    }

    /// Starts one. A deadline that has passed is due at once.
    #[inline]
    pub fn start(&mut self, deadline: Nanos, due: Due) -> TimerKey {
        self.started += 1;
        let started = self.started;
        let key = self.nodes.insert(Node {
            deadline,
            started,
            due,
            prev: NONE,
            next: NONE,
            place: IN_HEAP,
        });
        self.place(key.index(), deadline, started);
        TimerKey(key)
    }

    /// Stops one; `None` if it has fired or was stopped before.
    #[inline]
    pub fn stop(&mut self, key: TimerKey) -> Option<Due> {
        let node = self.nodes.remove(key.0)?;
        if node.place == IN_HEAP {
            self.heap_remove(node.prev as usize);
        } else {
            self.unlink(&node);
        }
        Some(node.due)
    }

    /// The deadline of a pending timer.
    pub fn deadline(&self, key: TimerKey) -> Option<Nanos> {
        self.nodes.get(key.0).map(|n| n.deadline)
    }

    /// When to look again.
    pub fn next(&self) -> Next {
        if let Some(first) = self.heap.first() {
            return Next::At(first.deadline);
        }
        let Some((level, slot)) = self.first_slot() else {
            return Next::Never;
        };
        let mut at = self.heads[level * SLOTS + slot];
        let mut least = Nanos::MAX;
        for _ in 0..LOOK {
            let node = self
                .nodes
                .get(self.nodes.key_at(at))
                .expect("a linked node is live");
            least = least.min(node.deadline);
            at = node.next;
            if at == NONE {
                return Next::At(least);
            }
        }
        Next::NotBefore(self.slot_start(level, slot) << TICK)
    }

    /// Moves time on to `now`; [`pop`](Self::pop) then gives what is due.
    pub fn advance(&mut self, now: Nanos) {
        let target = now >> TICK;
        while target > self.tick {
            match self.first_slot() {
                Some((level, slot)) if self.slot_start(level, slot) <= target => {
                    self.tick = self.slot_start(level, slot);
                    self.cascade(level, slot);
                }
                _ => self.tick = target,
            }
        }
    }

    /// Takes the first timer that is due at `now`, after [`advance`](Self::advance) to it.
    #[inline]
    pub fn pop(&mut self, now: Nanos) -> Option<(TimerKey, Nanos, Due)> {
        let first = *self.heap.first()?;
        if first.deadline > now {
            return None;
        }
        self.heap_remove(0);
        let key = self.nodes.key_at(first.node);
        let node = self.nodes.remove(key)?;
        if self.heap.is_empty() && self.heap.capacity() > 1024 {
            self.heap = Vec::new();
        }
        Some((TimerKey(key), node.deadline, node.due))
    }

    /// The pending timers whose `Due` is picked.
    pub fn keys_where(&self, pick: impl Fn(Due) -> bool) -> Vec<TimerKey> {
        let picked = self.nodes.iter().filter(|(_, node)| pick(node.due));
        picked.map(|(key, _)| TimerKey(key)).collect()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Timers {
            started: self.started,
            ..Timers::new(self.tick << TICK)
        };
    }

    /// The occupied slot that time reaches first.
    ///
    /// A node hangs on the highest group of bits in which its tick differs from the current one, so every
    /// slot of a level comes before every slot of the next, and within a level the lowest bit is first.
    #[inline]
    fn first_slot(&self) -> Option<(usize, usize)> {
        let level = self.occupied.iter().position(|o| *o != 0)?;
        Some((level, self.occupied[level].trailing_zeros() as usize))
    }

    /// The tick at which a slot begins.
    fn slot_start(&self, level: usize, slot: usize) -> u64 {
        let shift = BITS * level as u32;
        let above = shift + BITS;
        (self.tick >> above << above) | (slot as u64) << shift
    }

    #[inline]
    fn place(&mut self, index: u32, deadline: Nanos, started: u64) {
        let tick = deadline >> TICK;
        if tick <= self.tick {
            self.heap_push(HeapEntry {
                deadline,
                started,
                node: index,
            });
            return;
        }
        let level = ((63 - (tick ^ self.tick).leading_zeros()) / BITS) as usize;
        let slot = (tick >> (BITS * level as u32)) as usize & (SLOTS - 1);
        let place = level * SLOTS + slot;
        let head = self.heads[place];
        let node = self.nodes.at(index);
        node.place = place as u32;
        node.prev = NONE;
        node.next = head;
        if head != NONE {
            self.nodes.at(head).prev = index;
        }
        self.heads[place] = index;
        self.occupied[level] |= 1 << slot;
    }

    #[inline]
    fn unlink(&mut self, node: &Node) {
        if node.next != NONE {
            self.nodes.at(node.next).prev = node.prev;
        }
        if node.prev != NONE {
            self.nodes.at(node.prev).next = node.next;
            return;
        }
        self.heads[node.place as usize] = node.next;
        if node.next == NONE {
            self.occupied[node.place as usize / SLOTS] &= !(1 << (node.place as usize % SLOTS));
        }
    }

    fn cascade(&mut self, level: usize, slot: usize) {
        let mut at = std::mem::replace(&mut self.heads[level * SLOTS + slot], NONE);
        self.occupied[level] &= !(1 << slot);
        while at != NONE {
            let node = self.nodes.at(at);
            let (index, deadline, started) = (at, node.deadline, node.started);
            at = node.next;
            node.place = IN_HEAP;
            self.place(index, deadline, started);
        }
    }

    fn heap_push(&mut self, entry: HeapEntry) {
        self.heap.push(entry);
        self.sift_up(self.heap.len() - 1);
    }

    fn heap_remove(&mut self, at: usize) {
        let last = self
            .heap
            .pop()
            .expect("the position of a node in the heap exists");
        if at < self.heap.len() {
            let removed = std::mem::replace(&mut self.heap[at], last);
            if last.before(&removed) {
                self.sift_up(at);
            } else {
                self.sift_down(at);
            }
        }
    }

    fn settle(&mut self, at: usize, entry: HeapEntry) {
        self.heap[at] = entry;
        self.nodes.at(entry.node).prev = at as u32;
    }

    fn sift_up(&mut self, mut at: usize) {
        let entry = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / 4;
            if !entry.before(&self.heap[parent]) {
                break;
            }
            self.settle(at, self.heap[parent]);
            at = parent;
        }
        self.settle(at, entry);
    }

    fn sift_down(&mut self, mut at: usize) {
        let entry = self.heap[at];
        loop {
            let first = at * 4 + 1;
            let children = first..(first + 4).min(self.heap.len());
            let Some(least) = children.reduce(|a, b| {
                if self.heap[b].before(&self.heap[a]) {
                    b
                } else {
                    a
                }
            }) else {
                break;
            };
            if !self.heap[least].before(&entry) {
                break;
            }
            self.settle(at, self.heap[least]);
            at = least;
        }
        self.settle(at, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    fn due(word: u64) -> Due {
        Due { tag: 0, word }
    }

    fn fired(t: &mut Timers, now: Nanos) -> Vec<u64> {
        t.advance(now);
        std::iter::from_fn(|| t.pop(now))
            .map(|(_, _, d)| d.word)
            .collect()
    }

    /// Follows `next` to the end, and gives each timer with the moment at which it came out.
    fn run_out(t: &mut Timers) -> Vec<(Nanos, u64)> {
        let mut out = Vec::new();
        loop {
            let now = match t.next() {
                Next::Never => return out,
                Next::At(at) | Next::NotBefore(at) => at,
            };
            out.extend(fired(t, now).into_iter().map(|w| (now, w)));
        }
    }

    #[test]
    fn equal_deadlines_fire_in_the_order_of_their_start() {
        let mut t = Timers::new(0);
        for word in 0..100 {
            t.start(5 * MS, due(word));
        }
        t.start(5 * MS - 1, due(1000));
        assert_eq!(fired(&mut t, 5 * MS - 2), []);
        assert_eq!(fired(&mut t, 5 * MS - 1), [1000]);
        assert_eq!(fired(&mut t, 5 * MS), (0..100).collect::<Vec<_>>());
        assert!(t.is_empty());
    }

    #[test]
    fn every_timer_fires_at_its_own_nanosecond_whatever_the_level() {
        let mut t = Timers::new(12_345_678_901);
        let mut want = Vec::new();
        let mut x = 88_172_645_463_325_252_u64;
        for word in 0..20_000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let deadline = 12_345_678_901 + (x >> (word % 60));
            want.push((deadline, word));
            t.start(deadline, due(word));
        }
        want.sort();
        assert_eq!(run_out(&mut t), want);
    }

    #[test]
    fn stop_works_in_the_heap_and_in_the_wheel_and_only_once() {
        let mut t = Timers::new(0);
        let spread = [0, 1, MS / 2, 3 * MS, 70 * MS, 5_000 * MS, 1 << 55];
        let keys: Vec<_> = (0..700)
            .map(|i| t.start(spread[i % 7], due(i as u64)))
            .collect();
        for (i, k) in keys.iter().enumerate() {
            if i % 3 != 0 {
                assert_eq!(t.stop(*k), Some(due(i as u64)));
                assert_eq!(t.stop(*k), None);
            }
        }
        let mut words: Vec<_> = run_out(&mut t).into_iter().map(|(_, w)| w).collect();
        words.sort_unstable();
        assert_eq!(words, (0..700).filter(|i| i % 3 == 0).collect::<Vec<_>>());
        assert_eq!(t.next(), Next::Never);
    }

    #[test]
    fn a_late_look_gives_all_that_is_due_in_order() {
        let mut t = Timers::new(0);
        for (word, ms) in [900, 3, 70_000, 64, 65, 4_300].into_iter().enumerate() {
            t.start(ms * MS, due(word as u64));
        }
        assert_eq!(fired(&mut t, 100_000 * MS), [1, 3, 4, 0, 5, 2]);
    }

    #[test]
    fn a_timer_started_in_the_past_is_due_at_once() {
        let mut t = Timers::new(1 << 40);
        t.start(5, due(1));
        assert_eq!(t.next(), Next::At(5));
        assert_eq!(fired(&mut t, 1 << 40), [1]);
    }

    #[test]
    fn the_last_deadline_of_all_can_be_held() {
        let mut t = Timers::new(1 << 50);
        let k = t.start(Nanos::MAX, due(1));
        assert_eq!(t.deadline(k), Some(Nanos::MAX));
        assert_eq!(t.next(), Next::At(Nanos::MAX));
        assert_eq!(fired(&mut t, 1 << 60), []);
        assert_eq!(t.stop(k), Some(due(1)));
    }

    #[test]
    fn memory_of_a_burst_is_given_back_while_some_timer_stays() {
        let mut t = Timers::new(0);
        let keys: Vec<_> = (0..200_000).map(|i| t.start(i * MS / 16, due(i))).collect();
        let high = t.capacity();
        for k in &keys[1..] {
            t.stop(*k);
        }
        assert_eq!(t.len(), 1);
        assert!(t.capacity() * 100 < high);
    }
}
