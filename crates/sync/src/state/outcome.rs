//! [`Outcome`]: what an asynchronous result knows.

use std::convert::Infallible;

/// A value or a failure that comes later, or both after each other: the value stands then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome<V, E = Infallible> {
    value: Option<V>,
    failure: Option<E>,
}

impl<V, E> Default for Outcome<V, E> {
    fn default() -> Self {
        Outcome {
            value: None,
            failure: None,
        }
    }
}

impl<V, E> Outcome<V, E> {
    /// Whether there is one.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.value.is_some() || self.failure.is_some()
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> Option<&V> {
        self.value.as_ref()
    }

    /// The failure.
    #[inline]
    pub fn failure(&self) -> Option<&E> {
        self.failure.as_ref()
    }

    /// What a get is to give: the value if there is one, or else the failure.
    #[inline]
    pub fn get(&self) -> Option<Result<&V, &E>> {
        match (&self.value, &self.failure) {
            (Some(value), _) => Some(Ok(value)),
            (None, Some(failure)) => Some(Err(failure)),
            (None, None) => None,
        }
    }

    /// There is a value. Returns the one before.
    #[inline]
    #[must_use = "a value that is a reference has to be dropped where that may be done"]
    pub fn set(&mut self, value: V) -> Option<V> {
        self.value.replace(value)
    }

    /// There is a failure. Returns the one before.
    #[must_use = "a failure that is a reference has to be dropped where that may be done"]
    pub fn fail(&mut self, failure: E) -> Option<E> {
        self.failure.replace(failure)
    }

    /// Takes everything away.
    pub fn take(&mut self) -> (Option<V>, Option<E>) {
        (self.value.take(), self.failure.take())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_value_stands_before_a_failure_whichever_came_first() {
        let mut o = Outcome::<u8, &str>::default();
        assert!(!o.is_ready() && o.get().is_none());
        assert_eq!(o.fail("no"), None);
        assert_eq!(o.get(), Some(Err(&"no")));
        assert_eq!(o.set(1), None);
        assert_eq!((o.get(), o.failure()), (Some(Ok(&1)), Some(&"no")));
        assert_eq!((o.set(2), o.fail("never")), (Some(1), Some("no")));
        assert_eq!(o.take(), (Some(2), Some("never")));
        assert!(!o.is_ready());
    }
}
