//! The knotes of a queue and its active list: what `EV_ADD` and its like do, and the scan.

use super::knote::{Answer, Body, Knote, Name, Report};
use super::sets::{FIRST, Sets, Token};
use super::user::Slots;
use crate::sys::*;
use gevent_hub_core::os::errno;
use std::collections::{HashMap, VecDeque};
use std::io;

/// What a knote keeps of its flags.
const KEPT: u16 = EV_CLEAR | EV_ONESHOT | EV_DISPATCH;

pub struct Registry {
    knotes: HashMap<Name, Knote>,
    tokens: HashMap<Token, Name>,
    next: Token,
    /// What may have something to report, in the order in which it woke.
    active: VecDeque<Name>,
    /// The user events.
    users: Vec<Name>,
}

fn refused(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl Registry {
    pub fn new() -> Self {
        Registry {
            knotes: HashMap::new(),
            tokens: HashMap::new(),
            next: FIRST,
            active: VecDeque::new(),
            users: Vec::new(),
        }
    }

    /// Makes one change.
    pub fn change(&mut self, sets: &Sets, slots: &Slots, change: &Kevent) -> io::Result<()> {
        let name = (change.filter, change.ident);
        self.forget_if_closed(sets, name);
        if change.flags & EV_DELETE != 0 {
            return if self.remove(sets, name) {
                Ok(())
            } else {
                Err(self.missing(change))
            };
        }
        if self.knotes.contains_key(&name) {
            self.modify(sets, name, change)?;
        } else if change.flags & EV_ADD != 0 {
            self.add(sets, slots, name, change)?;
        } else {
            return Err(self.missing(change));
        }
        Ok(())
    }

    /// What a change of a knote that is not there says.
    fn missing(&self, change: &Kevent) -> io::Error {
        // A kernel looks for the descriptor first.
        match Body::new(change) {
            Err(e) if errno(&e) == libc::EBADF => e,
            _ => refused(libc::ENOENT),
        }
    }

    fn add(&mut self, sets: &Sets, slots: &Slots, name: Name, change: &Kevent) -> io::Result<()> {
        let body = if change.filter == EVFILT_USER {
            let slot = slots.add(change.ident);
            slot.control(change.fflags);
            self.users.push(name);
            Body::User(slot)
        } else {
            Body::new(change)?
        };
        let token = self.next;
        self.next += 1;
        body.arm(sets, token).map_err(|e| match errno(&e) {
            // A device that knows no readiness.
            libc::EPERM => refused(libc::ENODEV),
            _ => e,
        })?;
        // These reset themselves when they were reported.
        let by_nature = match change.filter {
            EVFILT_TIMER | EVFILT_SIGNAL | EVFILT_PROC => EV_CLEAR,
            _ => 0,
        };
        self.tokens.insert(token, name);
        let knote = Knote {
            body,
            token,
            flags: change.flags & KEPT | by_nature,
            udata: change.udata,
            enabled: change.flags & EV_DISABLE == 0,
            active: false,
        };
        self.knotes.insert(name, knote);
        self.evaluate(name);
        Ok(())
    }

    fn modify(&mut self, sets: &Sets, name: Name, change: &Kevent) -> io::Result<()> {
        let Some(knote) = self.knotes.get_mut(&name) else {
            return Ok(());
        };
        if change.flags & EV_ADD != 0 {
            knote.flags = knote.flags & !KEPT | change.flags & KEPT | knote.flags & EV_CLEAR;
            knote.udata = change.udata;
            knote.enabled = true;
            knote.body.change(change)?;
            // The number may name another file of the same inode by now (eventfds have one for all).
            knote.body.arm(sets, knote.token)?;
        } else if let Body::User(slot) = &knote.body {
            slot.control(change.fflags);
        }
        if change.flags & EV_DISABLE != 0 {
            knote.enabled = false;
        } else if change.flags & EV_ENABLE != 0 {
            knote.enabled = true;
        }
        self.evaluate(name);
        Ok(())
    }

    fn remove(&mut self, sets: &Sets, name: Name) -> bool {
        let Some(knote) = self.knotes.remove(&name) else {
            return false;
        };
        self.tokens.remove(&knote.token);
        self.active.retain(|n| *n != name);
        self.users.retain(|n| *n != name);
        if let Body::User(slot) = &knote.body {
            slot.retire();
        }
        knote.body.disarm(sets);
        true
    }

    /// A kernel deletes a knote when its descriptor is closed; here it is noticed when it matters.
    fn forget_if_closed(&mut self, sets: &Sets, name: Name) {
        if self.knotes.get(&name).is_some_and(|k| !k.body.is_same()) {
            // The number is another's, whose registration in the set it would be that is ended.
            let _ = sets;
            if let Some(knote) = self.knotes.remove(&name) {
                self.tokens.remove(&knote.token);
            }
            self.active.retain(|n| *n != name);
        }
    }

    /// The descriptor of a knote was ready.
    pub fn woken(&mut self, token: Token) {
        let Some(&name) = self.tokens.get(&token) else {
            return;
        };
        if let Some(knote) = self.knotes.get_mut(&name) {
            knote.body.woken();
        }
        self.activate(name);
    }

    /// A user event was triggered.
    pub fn rung(&mut self) {
        for name in self.users.clone() {
            let triggered = |k: &Knote| matches!(&k.body, Body::User(s) if s.is_triggered());
            if self.knotes.get(&name).is_some_and(triggered) {
                self.activate(name);
            }
        }
    }

    /// Looks at a knote that was added or changed.
    fn evaluate(&mut self, name: Name) {
        let something = |k: &mut Knote| k.enabled && k.body.has_something();
        if self.knotes.get_mut(&name).is_some_and(something) {
            self.activate(name);
        }
    }

    fn activate(&mut self, name: Name) {
        if let Some(knote) = self.knotes.get_mut(&name)
            && !knote.active
        {
            knote.active = true;
            self.active.push_back(name);
        }
    }

    /// Whether another scan may find something.
    pub fn has_active(&self) -> bool {
        let enabled = |n: &Name| self.knotes.get(n).is_some_and(|k| k.enabled);
        self.active.iter().any(enabled)
    }

    /// Writes what there is to report, each knote once, and gives how much that is.
    pub fn scan(&mut self, sets: &Sets, events: &mut [Kevent]) -> usize {
        let mut n = 0;
        for _ in 0..self.active.len() {
            if n == events.len() {
                break;
            }
            let Some(name) = self.active.pop_front() else {
                break;
            };
            let Some(knote) = self.knotes.get_mut(&name) else {
                continue;
            };
            if !knote.enabled {
                self.active.push_back(name);
                continue;
            }
            knote.active = false;
            let clear = knote.flags & EV_CLEAR != 0;
            match knote.body.ask(clear) {
                Answer::Nothing => {}
                Answer::Closed => self.forget_if_closed(sets, name),
                Answer::Fire(report) => {
                    events[n] = event(name, knote, report);
                    n += 1;
                    let flags = knote.flags | report.flags;
                    if flags & EV_ONESHOT != 0 {
                        self.remove(sets, name);
                    } else if flags & EV_DISPATCH != 0 {
                        knote.enabled = false;
                        if !clear {
                            self.activate(name);
                        }
                    } else if !clear {
                        self.activate(name);
                    }
                }
            }
        }
        n
    }
}

fn event(name: Name, knote: &Knote, report: Report) -> Kevent {
    Kevent {
        ident: name.1,
        filter: name.0,
        flags: knote.flags | report.flags,
        fflags: report.fflags,
        data: report.data,
        udata: knote.udata,
    }
}
