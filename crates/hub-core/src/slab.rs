//! [`Slab`]: slots with generations, in chunks that are given back to the allocator when they empty.
//!
//! A [`Key`] names a slot and the generation of its occupant, so a key that outlives its value finds
//! nothing. Chunks never move: growing copies nothing, and after a burst only the chunks that still hold
//! something stay.

use crate::event_loop::Key;

const SHIFT: u32 = 8;
const CHUNK: usize = 1 << SHIFT;
const NONE: u32 = u32::MAX;
/// Empty chunks kept, so that a value that comes and goes does not cost an allocation each time.
const SPARE: usize = 2;

struct Slot<T> {
    /// Odd while occupied, so that no valid key has generation 0.
    generation: u32,
    /// The next free slot of the chunk, while vacant.
    next: u32,
    value: Option<T>,
}

struct Chunk<T> {
    slots: Box<[Slot<T>]>,
    free: u32,
    live: u32,
    /// Where it stands in `Slab::partial`, if it does.
    partial: u32,
}

/// A collection of `T` named by [`Key`]s.
pub struct Slab<T> {
    chunks: Vec<Option<Chunk<T>>>,
    /// The generation from which the slots of a chunk start when it is made again.
    floors: Vec<u32>,
    /// Chunks with a free slot.
    partial: Vec<u32>,
    /// Indices whose chunk was given back.
    absent: Vec<u32>,
    live: usize,
    empty: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slab<T> {
    /// An empty slab; allocates nothing.
    pub const fn new() -> Self {
        Slab {
            chunks: Vec::new(),
            floors: Vec::new(),
            partial: Vec::new(),
            absent: Vec::new(),
            live: 0,
            empty: 0,
        }
    }

    /// How many values it holds.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Slots for which memory is held.
    pub fn capacity(&self) -> usize {
        (self.chunks.len() - self.absent.len()) * CHUNK
    }

    /// Stores `value`.
    #[inline]
    pub fn insert(&mut self, value: T) -> Key {
        let c = match self.partial.last() {
            Some(&c) => c,
            None => self.add_chunk(),
        };
        let chunk = self.chunks[c as usize]
            .as_mut()
            .expect("a partial chunk has memory");
        let s = chunk.free;
        let slot = &mut chunk.slots[s as usize];
        chunk.free = slot.next;
        slot.generation = slot.generation.wrapping_add(1);
        slot.value = Some(value);
        let key = Key::new(c << SHIFT | s, slot.generation);
        self.empty -= usize::from(chunk.live == 0);
        chunk.live += 1;
        if chunk.free == NONE {
            chunk.partial = NONE;
            self.partial.pop();
        }
        self.live += 1;
        key
    }

    /// The value of `key`, if it is still there.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        let chunk = self.chunks.get((key.index() >> SHIFT) as usize)?.as_ref()?;
        let slot = &chunk.slots[key.index() as usize & (CHUNK - 1)];
        if slot.generation == key.generation() {
            slot.value.as_ref()
        } else {
            None
        }
    }

    /// The value of `key`, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let chunk = self
            .chunks
            .get_mut((key.index() >> SHIFT) as usize)?
            .as_mut()?;
        let slot = &mut chunk.slots[key.index() as usize & (CHUNK - 1)];
        if slot.generation == key.generation() {
            slot.value.as_mut()
        } else {
            None
        }
    }

    /// The value in the slot `index`, which the caller knows to be occupied.
    ///
    /// # Panics
    /// When it is not.
    #[inline]
    pub fn at(&mut self, index: u32) -> &mut T {
        self.chunks[(index >> SHIFT) as usize]
            .as_mut()
            .expect("an occupied slot has memory")
            .slots[index as usize & (CHUNK - 1)]
            .value
            .as_mut()
            .expect("the slot is occupied")
    }

    /// The key of the occupied slot `index`.
    ///
    /// # Panics
    /// When the slot was never used.
    #[inline]
    pub fn key_at(&self, index: u32) -> Key {
        let chunk = self.chunks[(index >> SHIFT) as usize]
            .as_ref()
            .expect("an occupied slot has memory");
        Key::new(index, chunk.slots[index as usize & (CHUNK - 1)].generation)
    }

    /// Takes the value of `key` out.
    #[inline]
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let c = key.index() >> SHIFT;
        let s = key.index() as usize & (CHUNK - 1);
        let chunk = self.chunks.get_mut(c as usize)?.as_mut()?;
        let slot = &mut chunk.slots[s];
        if slot.generation != key.generation() {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.next = chunk.free;
        chunk.free = s as u32;
        chunk.live -= 1;
        self.live -= 1;
        if chunk.partial == NONE {
            chunk.partial = self.partial.len() as u32;
            self.partial.push(c);
        }
        if chunk.live == 0 {
            self.empty += 1;
            if self.empty > SPARE {
                self.give_back(c);
            }
        }
        Some(value)
    }

    /// All keys, in the order of their slots.
    pub fn keys(&self) -> Vec<Key> {
        self.iter().map(|(k, _)| k).collect()
    }

    /// All keys and values, in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.chunks
            .iter()
            .enumerate()
            .filter_map(|(c, chunk)| chunk.as_ref().map(|k| (c, k)))
            .flat_map(|(c, chunk)| {
                chunk.slots.iter().enumerate().filter_map(move |(s, slot)| {
                    let value = slot.value.as_ref()?;
                    Some((Key::new((c << SHIFT | s) as u32, slot.generation), value))
                })
            })
    }

    #[cold]
    fn add_chunk(&mut self) -> u32 {
        let c = self.absent.pop().unwrap_or_else(|| {
            self.chunks.push(None);
            self.floors.push(0);
            (self.chunks.len() - 1) as u32
        });
        let floor = self.floors[c as usize];
        let slots = (0..CHUNK as u32)
            .map(|s| Slot {
                generation: floor,
                next: if s + 1 < CHUNK as u32 { s + 1 } else { NONE },
                value: None,
            })
            .collect();
        let partial = self.partial.len() as u32;
        self.partial.push(c);
        self.empty += 1;
        self.chunks[c as usize] = Some(Chunk {
            slots,
            free: 0,
            live: 0,
            partial,
        });
        c
    }

    #[cold]
    fn give_back(&mut self, c: u32) {
        let chunk = self.chunks[c as usize]
            .take()
            .expect("an empty chunk has memory");
        // All are vacant, hence even; the highest keeps every key given out so far from matching again.
        self.floors[c as usize] = chunk.slots.iter().map(|s| s.generation).max().unwrap_or(0);
        let at = chunk.partial as usize;
        self.partial.swap_remove(at);
        if let Some(&moved) = self.partial.get(at) {
            self.chunks[moved as usize]
                .as_mut()
                .expect("a partial chunk has memory")
                .partial = at as u32;
        }
        self.absent.push(c);
        self.empty -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_find_the_next_occupant() {
        let mut s = Slab::new();
        let a = s.insert("a");
        assert_eq!(s.get(a), Some(&"a"));
        assert_eq!(s.remove(a), Some("a"));
        let b = s.insert("b");
        assert_eq!(a.index(), b.index());
        assert_ne!(a, b);
        assert_eq!(s.get(a), None);
        assert_eq!(s.remove(a), None);
        assert_eq!(s.get_mut(b), Some(&mut "b"));
        assert_eq!(*s.at(b.index()), "b");
        assert_eq!(s.key_at(b.index()), b);
        assert_ne!(b.0, 0);
    }

    #[test]
    fn memory_goes_back_and_old_keys_stay_dead() {
        let mut s = Slab::new();
        let keys: Vec<_> = (0..100_000).map(|i| s.insert(i)).collect();
        assert_eq!(s.len(), 100_000);
        let full = s.capacity();
        let keep = keys[77_777];
        for k in keys.iter().filter(|k| **k != keep) {
            assert!(s.remove(*k).is_some());
        }
        assert!(s.capacity() <= 3 * CHUNK && s.capacity() < full);
        assert_eq!(s.get(keep), Some(&77_777));
        let again: Vec<_> = (0..100_000).map(|i| s.insert(i)).collect();
        assert!(
            keys.iter()
                .filter(|k| **k != keep)
                .all(|k| s.get(*k).is_none())
        );
        assert!(again.iter().enumerate().all(|(i, k)| s.get(*k) == Some(&i)));
        assert_eq!(s.iter().count(), 100_001);
        assert_eq!(s.keys().len(), 100_001);
    }

    #[test]
    fn a_value_that_comes_and_goes_keeps_its_chunk() {
        let mut s = Slab::new();
        for i in 0..1000 {
            let k = s.insert(i);
            s.remove(k);
        }
        assert_eq!(s.capacity(), CHUNK);
        assert!(s.is_empty());
    }
}
