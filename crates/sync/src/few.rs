//! [`Few`]: a line of mostly none or one, which then allocates nothing.

use std::collections::VecDeque;

/// Values in order; the rest is empty as long as there is no first.
#[allow(
    clippy::box_collection,
    reason = "most have none, and the empty deque would be four words to make and to drop"
)]
pub struct Few<T> {
    first: Option<T>,
    /// Made when there is a second one.
    rest: Option<Box<VecDeque<T>>>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Few {
            first: None,
            rest: None,
        }
    }
}

impl<T> Few<T> {
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.first
            .iter()
            .chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    #[inline]
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let rest = self.rest.iter_mut().flat_map(|rest| rest.iter_mut());
        self.first.iter_mut().chain(rest)
    }

    /// Where the first is for which `is` is true. It looks at a single one without an iterator.
    #[inline]
    pub fn position(&self, is: impl Fn(&T) -> bool) -> Option<usize> {
        if is(self.first.as_ref()?) {
            return Some(0);
        }
        let at = self.rest.as_ref()?.iter().position(is)?;
        Some(at + 1)
    }

    /// The last one for which `is` is true, found likewise.
    #[inline]
    pub fn last(&self, is: impl Fn(&T) -> bool) -> Option<&T> {
        let in_rest = self
            .rest
            .as_ref()
            .and_then(|rest| rest.iter().rev().find(|value| is(value)));
        in_rest.or_else(|| self.first.as_ref().filter(|value| is(value)))
    }

    #[inline]
    pub fn get(&self, at: usize) -> Option<&T> {
        match at.checked_sub(1) {
            None => self.first.as_ref(),
            Some(at) => self.rest.as_ref()?.get(at),
        }
    }

    #[inline]
    pub fn push(&mut self, value: T) {
        if self.first.is_none() {
            self.first = Some(value);
        } else {
            self.rest.get_or_insert_default().push_back(value);
        }
    }

    #[inline]
    pub fn remove(&mut self, at: usize) -> Option<T> {
        match at.checked_sub(1) {
            None => {
                let next = self.rest.as_mut().and_then(|rest| rest.pop_front());
                std::mem::replace(&mut self.first, next)
            }
            Some(at) => self.rest.as_mut()?.remove(at),
        }
    }

    /// Drops those for which `is` is true.
    #[inline]
    pub fn discard(&mut self, is: impl Fn(&T) -> bool) {
        let mut at = 0;
        while let Some(value) = self.get(at) {
            if is(value) {
                self.remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// Takes those out, in order, that are not to be kept.
    pub fn extract(&mut self, keep: impl Fn(&T) -> bool) -> Vec<T> {
        let mut gone = Vec::new();
        let mut at = 0;
        while let Some(value) = self.get(at) {
            if keep(value) {
                at += 1;
            } else {
                gone.extend(self.remove(at));
            }
        }
        gone
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Few;

    #[test]
    fn it_is_a_line() {
        let mut few = Few::default();
        assert!(few.is_empty() && few.get(0).is_none() && few.remove(0).is_none());
        (0..4).for_each(|n| few.push(n));
        assert_eq!((few.len(), few.get(0), few.get(3)), (4, Some(&0), Some(&3)));
        assert!(few.iter().rev().eq(&[3, 2, 1, 0]));
        for n in 0..5 {
            assert_eq!(few.position(|m| *m >= n), (n < 4).then_some(n));
            assert_eq!(few.last(|m| *m < n), n.checked_sub(1).as_ref());
        }
        assert_eq!((few.remove(2), few.remove(0)), (Some(2), Some(0)));
        few.iter_mut().for_each(|n| *n += 10);
        assert_eq!((few.remove(2), few.len()), (None, 2));
        few.push(5);
        assert_eq!(few.extract(|n| *n == 13), [11, 5]);
        assert!(few.iter().eq(&[13]) && few.extract(|_| false) == [13]);
        assert!(few.is_empty());
        (1..5).for_each(|n| few.push(n));
        few.discard(|n| n % 2 == 1);
        assert!(few.iter().eq(&[2, 4]));
    }
}
