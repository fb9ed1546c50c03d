//! When a block that an application yields may wait for the next one.
//!
//! PEP 3333 forbids a server to delay a block, unless its transmission goes on while the application makes the
//! next. No thread watches over what is gathered here, so blocks are gathered only where the next one is about to come:
//! the first of an answer is sent, and so is each that took longer than [`QUICK`] to make, with all before it.
//! What was gathered goes when the oldest of it is [`PATIENCE`] old, when it is much, when the fiber waits for
//! anything, and at the end. If an application has kept a gathered block for longer than [`LATE`] all the same,
//! nothing more of that answer is gathered.
//!
//! The first block goes to the kernel in any case, unless the answers before have shown that a second one comes
//! quickly ([`Trust`]). Then a thread watches after all ([`super::outbox`]); where it cannot, the first block goes
//! with `MSG_MORE`: the kernel waits for the second with a packet that is not full, for 200 ms at most.

use gevent_hub_core::reactor::Nanos;

/// The next block is expected to take as long as the last one: up to here it is waited for.
const QUICK: Nanos = 50_000;
/// How old a gathered block becomes while blocks keep coming.
const PATIENCE: Nanos = 200_000;
/// A block that was gathered for so long should not have been.
const LATE: Nanos = 1_000_000;

/// So many answers in a row show that the second block comes quickly.
const TRUSTED: i32 = 16;
/// How many it takes when one of them was late.
const DOUBT: i32 = 256;

/// How quickly second blocks have come, of all answers of a server.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trust(i32);

impl Trust {
    /// Whether a second block may be waited for.
    pub(super) fn is_earned(self) -> bool {
        self.0 >= TRUSTED
    }

    /// After an answer that was kept too long.
    pub(super) fn lost(self) -> Self {
        Trust(TRUSTED - DOUBT)
    }

    /// After an answer whose second block took so long, without waiting for anything.
    pub(super) fn after(self, gap: Nanos) -> Self {
        Trust(match gap {
            ..QUICK => (self.0 + 1).min(TRUSTED),
            QUICK..LATE => self.0.min(0),
            _ => return self.lost(),
        })
    }
}

/// What is known of the blocks of one answer. Times are those of the reactor's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gathering {
    /// When the application went on after its last block.
    resumed: Nanos,
    /// Since when the oldest block waits, if any does.
    oldest: Nanos,
    /// A block was kept for too long.
    was_late: bool,
    /// How many blocks there were, up to 2.
    blocks: u8,
}

impl Gathering {
    /// Whether a block that has come `now` may wait for the next; `holding`: others of this answer do.
    pub(super) fn may_hold(&mut self, now: Nanos, holding: bool) -> bool {
        let age = match holding {
            true => now.saturating_sub(self.oldest),
            false => 0,
        };
        self.was_late |= age > LATE;
        !self.is_first()
            && !self.was_late
            && now.saturating_sub(self.resumed) < QUICK
            && age < PATIENCE
    }

    /// Whether the next block is the answer's first.
    pub(super) fn is_first(&self) -> bool {
        self.blocks == 0
    }

    /// How long the answer's second block took, if that is the one that has come `now`.
    pub(super) fn second(&self, now: Nanos) -> Option<Nanos> {
        (self.blocks == 1).then(|| now.saturating_sub(self.resumed))
    }

    /// The block waits; `holding` as above.
    pub(super) fn held(&mut self, now: Nanos, holding: bool) {
        self.blocks = 2;
        if !holding {
            self.oldest = now;
        }
        self.resumed = now;
    }

    /// A block was kept for so long that nothing more is to be.
    pub(super) fn give_up(&mut self) {
        self.was_late = true;
    }

    /// Everything is sent, and the application goes on.
    pub(super) fn sent(&mut self, now: Nanos) {
        self.blocks = (self.blocks + 1).min(2);
        self.resumed = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds blocks that take so many nanoseconds each: which of them wait.
    fn held(gaps: &[Nanos]) -> Vec<bool> {
        let mut gathering = Gathering::default();
        let mut now = 1_000_000;
        let mut holding = false;
        gaps.iter()
            .map(|gap| {
                now += gap;
                let hold = gathering.may_hold(now, holding);
                match hold {
                    true => gathering.held(now, holding),
                    false => gathering.sent(now),
                }
                holding = hold;
                hold
            })
            .collect()
    }

    #[test]
    fn only_quick_blocks_wait() {
        assert_eq!(held(&[0, 10, 10]), [false, true, true]);
        assert_eq!(held(&[0, QUICK, 10, QUICK]), [false, false, true, false]);
        assert!(!held(&[QUICK; 20]).contains(&true));
    }

    #[test]
    fn nothing_becomes_old() {
        let gap = QUICK - 1;
        let waits = held(&[gap; 12]);
        let longest = waits.split(|hold| !hold).map(<[bool]>::len).max();
        assert_eq!(longest, Some((PATIENCE / gap) as usize + 1));
    }

    #[test]
    fn trust_is_earned_slowly() {
        let mut trust = Trust::default();
        for _ in 0..TRUSTED {
            assert!(!trust.is_earned());
            trust = trust.after(10);
        }
        assert!(trust.is_earned());
        assert!(!trust.after(QUICK).is_earned());
        trust = trust.after(LATE);
        for _ in 0..DOUBT {
            assert!(!trust.is_earned());
            trust = trust.after(10);
        }
        assert!(trust.is_earned());
    }

    #[test]
    fn once_too_late_is_enough() {
        assert_eq!(
            held(&[0, 10, LATE + 1, 10, 10]),
            [false, true, false, false, false]
        );
        // A long time in which nothing waits is not late: what was gathered went when the fiber parked.
        assert_eq!(held(&[0, LATE + 1, 10]), [false, false, true]);
    }
}
