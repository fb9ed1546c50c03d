//! How those who are linked are told, and how fibers and threads wait to be told.

use super::{Links, Next, Who};
use crate::parker::{Ended, Parking, Sleeper};
use gevent_hub_core::reactor::Wake;

/// An object with links, and the ways to those who are linked. Nothing here runs foreign code but
/// [`tell`](Self::tell) and [`settle`](Self::settle), and no reference into the links is kept over those.
pub trait Linked {
    /// Who is linked.
    type Who: Who + From<Sleeper>;

    /// Looks at the links. Runs nothing but `f`, which does not use the object.
    fn links<R>(&self, f: impl FnOnce(&mut Links<Self::Who>) -> R) -> R;
    /// The hub of the calling thread; 0 if it has none.
    fn here(&self) -> u64;
    /// Whether a wait would not block.
    fn is_ready(&self) -> bool;
    /// Whether all are told when it is ready, or only as many as can go on.
    fn tells_all(&self) -> bool;
    /// What a waiter wants that takes something is on its way to it.
    fn give(&self);
    /// Whether a hub can still be reached.
    fn exists(&self, hub: u64) -> bool;
    /// Wakes a thread.
    fn wake_thread(&self, who: Self::Who);
    /// Wakes a fiber of another hub with what it wanted. `false` if it is gone.
    fn hand_over(&self, hub: u64, who: Self::Who) -> bool;
    /// Asks `hub` for a round of [`notify`]. `false` if it is gone.
    fn schedule(&mut self, hub: u64) -> bool;
    /// Drops a waiter whose hub is gone, when the object is [settled](Self::settle).
    fn drop_later(&mut self, who: Self::Who);
    /// Goes on with a fiber of the running hub, or calls a function, unless that is not `fresh`.
    fn tell(&mut self, who: Self::Who, fresh: bool);
    /// Does what was put off.
    fn settle(&mut self);
}

/// The object may have become ready: wakes threads, hands things to waiters of other hubs, and schedules a
/// round in each hub that has waiters left. From any thread.
#[inline]
pub fn check_and_notify<O: Linked>(object: &mut O) {
    if !object.links(|l| l.is_empty()) {
        choose(object);
        object.settle();
    }
}

fn choose<O: Linked>(object: &mut O) {
    let here = object.here();
    let mut at = 0;
    while object.is_ready() {
        let found = object.links(|l| {
            let link = l.list.get(at)?;
            let hub = if link.hub == 0 { here } else { link.hub };
            let is_fiber = link.who.id().is_some();
            Some((hub, link.taking, link.who.is_thread(), is_fiber))
        });
        let Some((hub, taking, is_thread, is_fiber)) = found else {
            break;
        };
        let take_off = |object: &O| object.links(|l| l.list.remove(at)).map(|link| link.who);
        if is_thread {
            if taking {
                object.give();
            }
            if let Some(who) = take_off(object) {
                object.wake_thread(who);
            }
            continue;
        }
        if hub != here && hub != 0 {
            if !object.exists(hub) {
                if let Some(who) = take_off(object) {
                    object.drop_later(who);
                }
                continue;
            }
            if taking && is_fiber {
                if let Some(who) = take_off(object)
                    && object.hand_over(hub, who)
                {
                    object.give();
                }
                continue;
            }
        }
        if !object.links(|l| l.notifies(hub)) {
            object.links(|l| l.notifiers.push(hub));
            if !object.schedule(hub) {
                object.links(|l| l.forget(hub));
            }
        }
        if !object.tells_all() {
            // First come, first served: the others are thought of when that hub is through.
            break;
        }
        at += 1;
    }
}

/// In `hub`: tells the links that belong to it.
pub fn notify<O: Linked>(object: &mut O, hub: u64) {
    let mut round = object.links(|l| l.begin(hub));
    let blocked = loop {
        let ready = object.tells_all() || object.is_ready();
        match object.links(|l| l.next(&mut round, ready)) {
            Next::Tell(who, fresh) => object.tell(who, fresh),
            Next::Blocked => break true,
            Next::Done => break false,
        }
    };
    object.settle();
    if !object.links(|l| l.end(&round, blocked)) {
        check_and_notify(object);
    } else if hub == 0 {
        notify(object, 0);
    } else if !object.schedule(hub) {
        object.links(|l| l.forget(hub));
    }
}

fn park<O: Linked>(
    object: &O,
    parking: &mut impl Parking,
    taking: bool,
    arrived: bool,
) -> (Ended, u64) {
    let hub = parking.hub();
    parking.park(
        |sleeper| object.links(|l| l.push(sleeper.into(), hub, taking, arrived)),
        |id, name| object.links(|l| l.rename(hub, id, name.into())),
    )
}

/// Waits until told, unless the object is ready; with `arrived` it is, and the wait is for those who came
/// before.
pub fn wait<O: Linked>(object: &O, parking: &mut impl Parking, arrived: bool) -> Ended {
    if !arrived && object.is_ready() {
        return Ended::Woken(Wake::Event);
    }
    let (ended, id) = park(object, parking, false, arrived);
    if !matches!(ended, Ended::Woken(_)) {
        object.links(|l| l.leave(parking.hub(), id));
    }
    ended
}

/// An object of which each waiter takes something: a semaphore.
pub trait Taken: Linked {
    /// Takes it, if it is there.
    fn take(&self) -> bool;

    /// A waiter to whom it was given does not take it: it is there again, for others. An error that the
    /// owner has stays.
    fn give_back(&mut self);
}

/// Takes something, after waiting for it.
///
/// [`Wake::Ready`] says that it was given by another thread; any other wake only that it is there for the
/// taking, unless yet another thread was faster.
pub fn take<O: Taken>(object: &mut O, parking: &mut impl Parking) -> Ended {
    loop {
        if object.take() {
            return Ended::Woken(Wake::Event);
        }
        let (ended, id) = park(object, parking, true, false);
        match ended {
            Ended::Woken(Wake::Ready) => return ended,
            Ended::Woken(_) => {}
            Ended::TimedOut | Ended::Interrupted => {
                let given = !object.links(|l| l.leave(parking.hub(), id));
                match ended {
                    Ended::TimedOut if given => return Ended::Woken(Wake::Ready),
                    Ended::Interrupted if given && !parking.only_told() => object.give_back(),
                    _ => {}
                }
                return ended;
            }
        }
    }
}
