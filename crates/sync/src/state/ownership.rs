//! [`Ownership`]: what a lock knows that its owner may take again.

use std::fmt;

/// Who holds a lock, and how often.
#[derive(Debug)]
pub struct Ownership<O> {
    owner: Option<O>,
    depth: usize,
}

/// A release by somebody who does not hold the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOwner;

impl fmt::Display for NotOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lock was released by somebody who does not hold it")
    }
}

impl std::error::Error for NotOwner {}

impl<O> Default for Ownership<O> {
    fn default() -> Self {
        Ownership {
            owner: None,
            depth: 0,
        }
    }
}

impl<O: PartialEq> Ownership<O> {
    /// Who holds it.
    #[inline]
    pub fn owner(&self) -> Option<&O> {
        self.owner.as_ref()
    }

    /// How often it is held.
    #[inline]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Whether `who` holds it.
    #[inline]
    pub fn is(&self, who: &O) -> bool {
        self.owner.as_ref() == Some(who)
    }

    /// Holds it once more, if `who` holds it already.
    #[inline]
    pub fn again(&mut self, who: &O) -> bool {
        let mine = self.is(who);
        self.depth += usize::from(mine);
        mine
    }

    /// It is held so often from now on, by `owner`; by somebody unknown for `None`. Returns the owner before.
    #[inline]
    #[must_use = "an owner that is a reference has to be dropped where that may be done"]
    pub fn put(&mut self, owner: Option<O>, depth: usize) -> Option<O> {
        self.depth = depth;
        std::mem::replace(&mut self.owner, owner)
    }

    /// Nobody holds it any more. Returns who did, and how often.
    pub fn take(&mut self) -> (Option<O>, usize) {
        (self.owner.take(), std::mem::take(&mut self.depth))
    }

    /// `who` holds it once less. Returns the owner if it is free now.
    ///
    /// # Errors
    /// [`NotOwner`]; nothing has changed.
    #[inline]
    pub fn leave(&mut self, who: &O) -> Result<Option<O>, NotOwner> {
        if !self.is(who) {
            return Err(NotOwner);
        }
        self.depth = self.depth.saturating_sub(1);
        Ok(if self.depth == 0 {
            self.owner.take()
        } else {
            None
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn it_is_free_when_it_was_left_as_often_as_entered() {
        let mut o = Ownership::default();
        assert!(!o.again(&"a") && o.owner().is_none());
        assert_eq!(o.put(Some("a"), 1), None);
        assert!(o.again(&"a") && o.is(&"a") && !o.again(&"b"));
        assert_eq!(o.depth(), 2);
        assert_eq!(o.leave(&"b"), Err(NotOwner));
        assert_eq!((o.leave(&"a"), o.leave(&"a")), (Ok(None), Ok(Some("a"))));
        assert_eq!(o.leave(&"a"), Err(NotOwner));
        assert_eq!((o.owner(), o.depth()), (None, 0));
    }

    #[test]
    fn it_can_be_given_up_as_a_whole_and_restored() {
        let mut o = Ownership::default();
        let _ = o.put(Some(7), 3);
        assert_eq!(o.take(), (Some(7), 3));
        assert!(!o.is(&7) && o.depth() == 0);
        let _ = o.put(Some(7), 3);
        for left in [None, None, Some(7)] {
            assert_eq!(o.leave(&7), Ok(left));
        }
        // Restored by hand with no depth, it is free after one release.
        assert_eq!(o.put(Some(7), 0), None);
        assert_eq!(o.leave(&7), Ok(Some(7)));
    }
}
