//! How those who wait for a channel meet: an item goes from a putter to a getter, and is never kept.

use super::{Line, Owner, Waiter, schedule};
use crate::parker::{Ended, Parking, Sleeper};
use gevent_hub_core::reactor::Wake;

/// A channel: its lines. What is left for a getter is its item.
pub trait Meeting: Owner<Mail = <Self as Owner>::Item> {}

impl<O: Owner<Mail = <O as Owner>::Item>> Meeting for O {}

/// Takes the getters off the front whose hub is gone: an item would be lost with them.
fn pass_over_the_gone<C: Meeting>(channel: &C) {
    let here = channel.here();
    loop {
        let first = channel.lines(|l| {
            let w = l.getters.front()?;
            Some((w.hub, w.sleeper.is_thread()))
        });
        match first {
            Some((hub, false)) if hub != here && !channel.exists(hub) => {
                channel.lines(|l| l.pop(Line::Getters));
            }
            _ => break,
        }
    }
}

/// The first putter's item goes to the first getter. They are to be woken.
fn pair<C: Meeting>(channel: &C) -> Option<[Waiter<C::Item>; 2]> {
    if channel.lines(|l| l.putters.is_empty()) {
        return None;
    }
    pass_over_the_gone(channel);
    channel.lines(|l| {
        if l.getters.is_empty() || l.putters.is_empty() {
            return None;
        }
        let getter = l.pop(Line::Getters)?;
        let mut putter = l.pop(Line::Putters)?;
        if let Some(item) = putter.item.take() {
            l.post(getter.hub, getter.sleeper.id(), item);
        }
        Some([getter, putter])
    })
}

fn pair_all<C: Meeting>(channel: &C) {
    while let Some(pair) = pair(channel) {
        for waiter in pair {
            channel.wake(waiter, Wake::Ready, true);
        }
    }
}

/// In `hub`, which is to look after the waiters: goes on with all that meet.
pub fn round<C: Meeting>(channel: &C, hub: u64) {
    pair_all(channel);
    channel.lines(|l| l.forget(hub));
    notify(channel);
}

/// Has those go on that meet: soon, by the hub of the calling thread, or at once where there is none.
pub fn notify<C: Meeting>(channel: &C) {
    if channel.lines(|l| l.getters.is_empty() || l.putters.is_empty()) {
        return;
    }
    match channel.here() {
        0 => pair_all(channel),
        here => schedule(channel, here),
    }
}

fn park<C: Meeting>(
    channel: &C,
    parking: &mut impl Parking,
    line: Line,
    item: Option<C::Item>,
) -> (Ended, u64) {
    let hub = parking.hub();
    parking.park(
        |sleeper| {
            let waiter = Waiter { sleeper, hub, item };
            channel.lines(|l| l.enter(line, waiter, false));
            notify(channel);
        },
        |id, name| channel.lines(|l| l.rename(line, hub, id, name)),
    )
}

/// Why nobody came.
#[derive(Debug, PartialEq, Eq)]
pub enum Alone {
    /// The time is over.
    Late,
    /// The owner has an error.
    Failed,
}

/// Waits for somebody who takes `item`. It may happen at the last moment.
///
/// # Errors
/// [`Alone`].
pub fn put<C: Meeting>(
    channel: &C,
    parking: &mut impl Parking,
    item: C::Item,
) -> Result<(), Alone> {
    let hub = parking.hub();
    let (ended, id) = park(channel, parking, Line::Putters, Some(item));
    if let Ended::Woken(_) = ended {
        return Ok(());
    }
    let waiter = channel.lines(|l| l.leave(Line::Putters, hub, id));
    let taken = waiter.is_none();
    if let Some(waiter) = waiter {
        channel.release(waiter.item);
    }
    match ended {
        Ended::TimedOut if !taken => Err(Alone::Late),
        Ended::Interrupted => Err(Alone::Failed),
        _ => Ok(()),
    }
}

/// Waits for somebody who brings an item. If the getter is interrupted with an item on its way to it, that
/// goes to the next one.
///
/// # Errors
/// [`Alone`].
pub fn get<C: Meeting>(channel: &C, parking: &mut impl Parking) -> Result<C::Item, Alone> {
    let hub = parking.hub();
    let (ended, id) = park(channel, parking, Line::Getters, None);
    let item = channel.lines(|l| {
        l.leave(Line::Getters, hub, id);
        l.collect(hub, id)
    });
    match (item, ended) {
        (Some(item), Ended::Woken(_) | Ended::TimedOut) => Ok(item),
        (None, Ended::Woken(_) | Ended::TimedOut) => Err(Alone::Late),
        (None, Ended::Interrupted) => Err(Alone::Failed),
        (Some(item), Ended::Interrupted) => {
            let left = Waiter {
                sleeper: Sleeper::Nobody,
                hub: 0,
                item: Some(item),
            };
            channel.lines(|l| l.enter(Line::Putters, left, true));
            notify(channel);
            Err(Alone::Failed)
        }
    }
}

/// Hands an item to the first getter, from a hub, which cannot wait.
///
/// # Errors
/// Gives the item back if there is none.
pub fn put_now<C: Meeting>(channel: &C, item: C::Item) -> Result<(), C::Item> {
    pass_over_the_gone(channel);
    let met = channel.lines(|l| match l.pop(Line::Getters) {
        None => Err(item),
        Some(getter) => {
            l.post(getter.hub, getter.sleeper.id(), item);
            Ok(getter)
        }
    });
    met.map(|getter| channel.wake(getter, Wake::Ready, true))
}

/// The first putter's item, for a hub, which cannot wait. The putter goes on soon, after what the hub is at.
pub fn get_now<C: Meeting>(channel: &C) -> Option<C::Item> {
    let (putter, item) = channel.lines(|l| {
        let mut putter = l.pop(Line::Putters)?;
        let item = putter.item.take()?;
        Some((putter, item))
    })?;
    channel.wake(putter, Wake::Ready, false);
    Some(item)
}
