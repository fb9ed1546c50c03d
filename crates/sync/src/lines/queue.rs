//! How the getters and putters of a queue are served.
//!
//! The item of a putter is taken with its place in the line. A getter is only told to look, and waits again,
//! in front, if another thread was faster.

use super::{Line, Owner, Waiter, schedule};
use crate::parker::{Ended, Parking};
use gevent_hub_core::reactor::Wake;

/// A queue: its lines, and where its items are. `Mail` is why an item was refused.
pub trait Store: Owner {
    /// How many items there are. An error is the owner's, and counts as none.
    fn len(&self) -> usize;

    /// Whether there is none.
    #[inline]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an item may be put. An error is the owner's, and counts as no.
    fn has_room(&self) -> bool;

    /// Runs `f` with the items locked, if that is needed. `None`: they could not be locked.
    fn guarded<R>(&self, f: impl FnOnce() -> R) -> Option<R>;

    /// Puts the item of a waiter.
    ///
    /// # Errors
    /// It was refused.
    fn put(&self, item: &Self::Item) -> Result<(), Self::Mail>;

    /// Drops the reason for which an item was refused: its putter does not want to know.
    fn discard(&self, refusal: Self::Mail);

    /// Whether it takes no items any more.
    fn is_closed(&self) -> bool;
}

/// Puts the first putter's item if there is room, and returns the putter, which is to be woken.
fn deliver<S: Store>(queue: &S) -> Option<(Waiter<S::Item>, Wake)> {
    if queue.lines(|l| l.line(Line::Putters).is_empty()) {
        return None;
    }
    queue.guarded(|| {
        if !queue.has_room() {
            return None;
        }
        let waiter = queue.lines(|l| l.pop(Line::Putters))?;
        let put = waiter.item.as_ref().map_or(Ok(()), |item| queue.put(item));
        let why = match put {
            Ok(()) => Wake::Ready,
            Err(refusal) => {
                queue.lines(|l| l.post(waiter.hub, waiter.sleeper.id(), refusal));
                Wake::Fault
            }
        };
        Some((waiter, why))
    })?
}

/// Takes the first getter of `hub` off if there are items.
#[inline]
fn next_getter<S: Store>(queue: &S, hub: u64) -> Option<Waiter<S::Item>> {
    if hub == 0 || queue.lines(|l| l.line(Line::Getters).is_empty()) || queue.is_empty() {
        return None;
    }
    queue.lines(|l| {
        let at = l.line(Line::Getters).iter().position(|w| w.hub == hub)?;
        l.remove(Line::Getters, at)
    })
}

/// In `hub`, which is to look after its waiters: goes on with putters while there is room, and with getters
/// while there are items.
pub fn round<S: Store>(queue: &S, hub: u64) {
    loop {
        let putter = deliver(queue);
        let some = putter.is_some();
        if let Some((waiter, why)) = putter {
            queue.wake(waiter, why, true);
        }
        match next_getter(queue, hub) {
            Some(getter) => queue.wake(getter, Wake::Event, true),
            None if some => {}
            None => break,
        }
    }
    queue.lines(|l| l.forget(hub));
    notify(queue);
}

/// Has the waiters served whose turn it is, from any thread.
pub fn notify<S: Store>(queue: &S) {
    if queue.lines(|l| l.is_empty()) {
        return;
    }
    let here = queue.here();
    notify_getters(queue, here);
    if queue.lines(|l| l.line(Line::Putters).is_empty()) || !queue.has_room() {
        return;
    }
    if here != 0 {
        return schedule(queue, here);
    }
    let first = queue.lines(|l| l.line(Line::Putters).front().map(|w| w.hub));
    match first {
        Some(hub) if hub != 0 && queue.exists(hub) => schedule(queue, hub),
        Some(_) => {
            if let Some((waiter, why)) = deliver(queue) {
                queue.wake(waiter, why, true);
            }
        }
        None => {}
    }
}

/// As many getters as there are items.
fn notify_getters<S: Store>(queue: &S, here: u64) {
    if queue.lines(|l| l.line(Line::Getters).is_empty()) {
        return;
    }
    let only = queue.lines(|l| l.getters_hub());
    if let Some(hub) = only.filter(|hub| *hub != 0 && (*hub == here || queue.exists(*hub))) {
        // One call serves them all, however many items and getters there are by now.
        if !queue.is_empty() {
            schedule(queue, hub);
        }
        return;
    }
    let mut at = 0;
    for _ in 0..queue.len() {
        let found = queue.lines(|l| {
            let w = l.line(Line::Getters).get(at)?;
            Some((w.hub, w.sleeper.is_thread()))
        });
        let Some((hub, is_thread)) = found else {
            break;
        };
        let gone = !is_thread && hub != here && !queue.exists(hub);
        if !(is_thread || gone) {
            schedule(queue, hub);
            at += 1;
            continue;
        }
        let waiter = queue.lines(|l| l.remove(Line::Getters, at));
        if let Some(waiter) = waiter.filter(|_| is_thread) {
            queue.wake(waiter, Wake::Ready, true);
        }
    }
}

/// Goes on with a getter of this thread from its hub, which wants to put and cannot wait. `false` if there
/// is none.
pub fn serve_a_getter<S: Store>(queue: &S) -> bool {
    let getter = next_getter(queue, queue.here());
    getter
        .map(|getter| queue.wake(getter, Wake::Event, true))
        .is_some()
}

/// Goes on with the first putter from the hub, which wants to get and cannot wait. `false` if there is none,
/// or no room for its item.
pub fn serve_a_putter<S: Store>(queue: &S) -> bool {
    deliver(queue)
        .map(|(waiter, why)| queue.wake(waiter, why, true))
        .is_some()
}

/// Ends all waits with [`Wake::Closed`]. Whoever shuts it down goes on first.
pub fn shut<S: Store>(queue: &S) {
    for waiter in queue.lines(|l| l.take_all()) {
        queue.wake(waiter, Wake::Closed, false);
    }
}

/// Goes to the end of a line, or to its front, and has those served who wait in the other.
fn enter<S: Store>(queue: &S, line: Line, waiter: Waiter<S::Item>, first: bool) {
    let others = queue.lines(|l| {
        l.enter(line, waiter, first);
        !l.line(line.other()).is_empty()
    });
    if others {
        notify(queue);
    }
}

/// Takes a waiter off. `false` if it is not there any more.
fn leave<S: Store>(queue: &S, line: Line, hub: u64, id: u64) -> bool {
    match queue.lines(|l| l.leave(line, hub, id)) {
        Some(waiter) => {
            queue.release(waiter.item);
            true
        }
        None => false,
    }
}

/// What came of a wait for an item.
#[derive(Debug, PartialEq, Eq)]
pub enum Got<T> {
    /// This.
    Item(T),
    /// The queue takes no more items, and has none.
    Closed,
    /// The time is over.
    Late,
    /// The owner has an error.
    Failed,
}

/// Waits until `attempt` brings something. It returns `Err` if the owner has an error.
///
/// A thread may have been woken in place of somebody else: after its wait the others have to be
/// [notified](notify), which is left to the caller, who has the item or the error in hand.
pub fn get<S: Store, T>(
    queue: &S,
    parking: &mut impl Parking,
    mut attempt: impl FnMut() -> Result<Option<T>, ()>,
) -> Got<T> {
    let hub = parking.hub();
    let mut again = false;
    loop {
        match attempt() {
            Ok(Some(item)) => return Got::Item(item),
            Ok(None) => {}
            Err(()) => return Got::Failed,
        }
        if queue.is_closed() {
            return Got::Closed;
        }
        let (ended, id) = parking.park(
            |sleeper| {
                let waiter = Waiter {
                    sleeper,
                    hub,
                    item: None,
                };
                enter(queue, Line::Getters, waiter, again);
            },
            |id, name| queue.lines(|l| l.rename(Line::Getters, hub, id, name)),
        );
        match ended {
            Ended::Woken(Wake::Closed) => return Got::Closed,
            Ended::Woken(_) => again = true,
            Ended::Interrupted => {
                leave(queue, Line::Getters, hub, id);
                return Got::Failed;
            }
            Ended::TimedOut => {
                leave(queue, Line::Getters, hub, id);
                if hub != 0 {
                    return Got::Late;
                }
                // Nothing of a thread is woken by the clock before it looks: it may be there by now.
                return match attempt() {
                    Ok(Some(item)) => Got::Item(item),
                    Ok(None) => Got::Late,
                    Err(()) => Got::Failed,
                };
            }
        }
    }
}

/// What came of a wait for room.
#[derive(Debug, PartialEq, Eq)]
pub enum Put<M> {
    /// The item is in the queue.
    Done,
    /// It was refused, for this reason if that is known.
    Refused(Option<M>),
    /// The queue takes no more items.
    Closed,
    /// The time is over.
    Late,
    /// The owner has an error.
    Failed,
}

/// Waits until the item was taken.
pub fn put<S: Store>(queue: &S, parking: &mut impl Parking, item: S::Item) -> Put<S::Mail> {
    let hub = parking.hub();
    let (ended, id) = parking.park(
        |sleeper| {
            let waiter = Waiter {
                sleeper,
                hub,
                item: Some(item),
            };
            enter(queue, Line::Putters, waiter, false);
        },
        |id, name| queue.lines(|l| l.rename(Line::Putters, hub, id, name)),
    );
    match ended {
        Ended::Woken(Wake::Closed) => Put::Closed,
        Ended::Woken(Wake::Fault) => Put::Refused(queue.lines(|l| l.collect(hub, id))),
        Ended::Woken(_) => Put::Done,
        Ended::Interrupted => {
            if !leave(queue, Line::Putters, hub, id)
                && let Some(refusal) = queue.lines(|l| l.collect(hub, id))
            {
                queue.discard(refusal);
            }
            Put::Failed
        }
        // It may have gone into the queue at the last moment.
        Ended::TimedOut if leave(queue, Line::Putters, hub, id) => Put::Late,
        // Or have been refused then.
        Ended::TimedOut => match queue.lines(|l| l.collect(hub, id)) {
            Some(refusal) => Put::Refused(Some(refusal)),
            None if queue.is_closed() => Put::Late,
            None => Put::Done,
        },
    }
}
