//! A knote: an event of interest, by filter and identifier, and what its filter keeps for it.

use super::descriptors::Descriptor;
use super::files::File;
use super::process::Process;
use super::sets::{Kind, Sets, Token};
use super::signals::Signal;
use super::timers::Timer;
use super::user::Slot;
use crate::sys::*;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

/// What names a knote.
pub type Name = (i16, usize);

/// What a filter reports.
#[derive(Clone, Copy, Default, Debug)]
pub struct Report {
    pub flags: u16,
    pub fflags: u32,
    pub data: i64,
}

/// The filter's part.
pub enum Body {
    Descriptor(Descriptor),
    File(File),
    Timer(Timer),
    Process(Process),
    Signal(Signal),
    User(Arc<Slot>),
}

pub struct Knote {
    pub body: Body,
    pub token: Token,
    /// Those of EV_CLEAR, EV_ONESHOT and EV_DISPATCH that it has.
    pub flags: u16,
    pub udata: usize,
    pub enabled: bool,
    /// It stands in the active list.
    pub active: bool,
}

/// What the scan makes of a knote's question.
pub enum Answer {
    Nothing,
    Fire(Report),
    /// Its descriptor was closed: a kernel would have deleted the knote then.
    Closed,
}

impl Body {
    /// Makes the filter's part of a new knote.
    pub fn new(change: &Kevent) -> io::Result<Body> {
        Ok(match change.filter {
            EVFILT_READ | EVFILT_WRITE => match Descriptor::new(change)? {
                Some(descriptor) => Body::Descriptor(descriptor),
                None => Body::File(File::new(change)?),
            },
            filter if Some(filter) == EVFILT_EXCEPT => match Descriptor::new(change)? {
                Some(descriptor) => Body::Descriptor(descriptor),
                None => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
            },
            EVFILT_VNODE => Body::File(File::new(change)?),
            EVFILT_TIMER => Body::Timer(Timer::new(change)?),
            EVFILT_PROC => Body::Process(Process::new(change)?),
            EVFILT_SIGNAL => Body::Signal(Signal::new(change)?),
            _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        })
    }

    /// `EV_ADD` of a knote that is there: takes over the change's parameters.
    pub fn change(&mut self, change: &Kevent) -> io::Result<()> {
        match self {
            Body::Descriptor(_) => Ok(()),
            Body::File(file) => {
                file.notes = change.fflags;
                Ok(())
            }
            Body::Timer(timer) => timer.set(change),
            Body::Process(_) | Body::Signal(_) => Ok(()),
            Body::User(slot) => {
                slot.control(change.fflags);
                Ok(())
            }
        }
    }

    /// The descriptor that wakes it.
    fn source(&self) -> Option<(Kind, RawFd)> {
        match self {
            Body::Descriptor(d) => Some((d.kind, d.fd)),
            Body::File(f) => f.source().map(|fd| (Kind::Read, fd)),
            Body::Timer(t) => Some((Kind::Read, t.source())),
            Body::Process(p) => Some((Kind::Read, p.source())),
            Body::Signal(s) => Some((Kind::Read, s.source())),
            Body::User(_) => None,
        }
    }

    pub fn arm(&self, sets: &Sets, token: Token) -> io::Result<()> {
        self.source()
            .map_or(Ok(()), |(kind, fd)| sets.arm(kind, fd, token))
    }

    pub fn disarm(&self, sets: &Sets) {
        if let Some((kind, fd)) = self.source() {
            sets.disarm(kind, fd);
        }
    }

    /// Its descriptor was ready.
    pub fn woken(&mut self) {
        match self {
            Body::File(file) => file.woken(),
            Body::Timer(timer) => timer.woken(),
            Body::Process(process) => process.woken(),
            Body::Signal(signal) => signal.woken(),
            Body::Descriptor(_) | Body::User(_) => {}
        }
    }

    /// Whether the descriptor that it is about is still the one it was made for.
    pub fn is_same(&self) -> bool {
        match self {
            Body::Descriptor(d) => d.is_same(),
            Body::File(f) => f.is_same(),
            _ => true,
        }
    }

    /// Whether there is something to report by now, without reporting it: what a kernel asks when an event is
    /// added or enabled. Of the others a wake will tell.
    pub fn has_something(&mut self) -> bool {
        match self {
            Body::Descriptor(d) => matches!(d.ask(), Answer::Fire(_)),
            Body::File(f) => matches!(f.ask(false), Answer::Fire(_)),
            Body::User(slot) => slot.is_triggered(),
            Body::Timer(_) | Body::Process(_) | Body::Signal(_) => false,
        }
    }

    /// Whether there is something to report; `clear` says that reporting it ends it.
    pub fn ask(&mut self, clear: bool) -> Answer {
        let report = match self {
            Body::Descriptor(d) => return d.ask(),
            Body::File(f) => return f.ask(clear),
            Body::Timer(t) => t.ask(),
            Body::Process(p) => p.ask(),
            Body::Signal(s) => s.ask(),
            Body::User(slot) => slot.ask(clear),
        };
        report.map_or(Answer::Nothing, Answer::Fire)
    }
}
