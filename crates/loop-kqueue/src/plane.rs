//! What a descriptor has in one of the two queues, how that is changed, and what its events mean.

use crate::sys::*;
use gevent_hub_core::event_loop::{Interest, Readiness};
use gevent_hub_core::os::{check, errno};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// A set of filters.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Filters(u8);

impl Filters {
    pub const NONE: Self = Filters(0);
    pub const READ: Self = Filters(1);
    pub const WRITE: Self = Filters(2);
    pub const EXCEPT: Self = Filters(4);
    pub const BOTH: Self = Filters(3);

    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// The filters of what a watcher wants of a descriptor of this kind.
    pub fn of(want: Interest, what: What) -> Self {
        let mut filters = Filters::NONE;
        if want.has(Readiness::READ) {
            filters.insert(Filters::READ);
        }
        if want.has(Readiness::WRITE) {
            filters.insert(Filters::WRITE);
        }
        if want.has(Readiness::PRI) && what == What::Socket && EVFILT_EXCEPT.is_some() {
            filters.insert(Filters::EXCEPT);
        }
        filters
    }

    fn each() -> impl Iterator<Item = (Filters, i16)> {
        [
            Some((Filters::READ, EVFILT_READ)),
            Some((Filters::WRITE, EVFILT_WRITE)),
            EVFILT_EXCEPT.map(|f| (Filters::EXCEPT, f)),
        ]
        .into_iter()
        .flatten()
    }

    fn of_number(filter: i16) -> Self {
        Self::each()
            .find(|(_, number)| *number == filter)
            .map_or(Filters::NONE, |(f, _)| f)
    }
}

/// What a descriptor is, as far as its events depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum What {
    /// Regular, a directory, a disk: never waited for.
    File,
    Socket,
    /// A pipe, a terminal, another queue.
    #[default]
    Stream,
}

impl What {
    /// Asks the kernel.
    pub fn of(fd: RawFd) -> io::Result<Self> {
        let mut s = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: room for the result, read only when it was filled.
        let mode = unsafe {
            check(libc::fstat(fd, s.as_mut_ptr()))?;
            s.assume_init().st_mode
        };
        Ok(match mode & libc::S_IFMT {
            libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK => What::File,
            libc::S_IFSOCK => What::Socket,
            _ => What::Stream,
        })
    }
}

/// The place of a descriptor in one of the queues.
#[derive(Clone, Copy, Default)]
pub struct Place {
    /// What the queue has of it.
    pub armed: Filters,
    /// What the kernel would not take.
    pub refused: Filters,
    /// Directions whose end was reported.
    pub ended: Filters,
    /// What the events of this batch said.
    pub got: Readiness,
}

/// Errors by which a kernel says that a descriptor has no such readiness, and not that something is wrong:
/// devices have none of their own, and a pipe whose other end is gone (EPIPE) is writable, to fail.
fn is_refusal(errno: i32) -> bool {
    matches!(
        errno,
        libc::EINVAL | libc::ENODEV | libc::EPERM | libc::EOPNOTSUPP | libc::ENOTTY | libc::EPIPE
    )
}

impl Place {
    /// Makes the queue hold `wanted` of `fd`, and no other filter of it. With `renew`, what it holds already is
    /// told again: then what is ready now is reported, also to an edge watcher.
    ///
    /// # Errors
    /// `EBADF`, `ENOMEM` and the like; a refusal is noted in `refused`.
    pub fn update(
        &mut self,
        queue: &Queue,
        fd: RawFd,
        wanted: Filters,
        clear: u16,
        renew: bool,
    ) -> io::Result<()> {
        let mut changes = [Kevent::default(); 3];
        let mut n = 0;
        for (filter, number) in Filters::each() {
            let flags = if wanted.has(filter) && (renew || !self.armed.has(filter)) {
                EV_ADD | clear
            } else if self.armed.has(filter) && !wanted.has(filter) {
                EV_DELETE
            } else {
                continue;
            };
            changes[n] = Kevent::new(fd as usize, number, flags | EV_RECEIPT);
            if filter == Filters::EXCEPT {
                changes[n].fflags = NOTE_OOB;
            }
            n += 1;
        }
        if n == 0 {
            return Ok(());
        }
        let mut receipts = [Kevent::default(); 3];
        let written = queue.kevent(&changes[..n], &mut receipts[..n], Some(0))?;
        let mut result = Ok(());
        for receipt in &receipts[..written] {
            let filter = Filters::of_number(receipt.filter);
            let error = receipt.error().unwrap_or(0);
            if !wanted.has(filter) {
                // A descriptor that was closed has nothing left to delete.
                self.armed.remove(filter);
                continue;
            }
            self.ended.remove(filter);
            self.refused.remove(filter);
            self.armed.insert(filter);
            if error != 0 {
                self.armed.remove(filter);
                self.refused.insert(filter);
            }
            if error != 0 && !is_refusal(error) && filter != Filters::EXCEPT {
                result = Err(io::Error::from_raw_os_error(error));
            }
        }
        result
    }

    /// Notes an event. `other` tells whether the other direction of a socket has ended too, if that is not known
    /// from the events of this place.
    pub fn note(&mut self, event: &Kevent, what: What, other: impl FnOnce(i16) -> bool) {
        let filter = Filters::of_number(event.filter);
        let mut got = match filter {
            Filters::READ => Readiness::READ,
            Filters::WRITE => Readiness::WRITE,
            _ => Readiness::PRI,
        };
        if event.flags & EV_EOF != 0 && filter != Filters::EXCEPT {
            self.ended.insert(filter);
            if event.fflags != 0 {
                got = got.with(Readiness::ERR);
            }
            let (rest, number) = if filter == Filters::READ {
                (Filters::WRITE, EVFILT_WRITE)
            } else {
                (Filters::READ, EVFILT_READ)
            };
            got = got.with(match (what, filter) {
                (What::Socket, _) => {
                    let both = self.ended.has(rest) || !self.armed.has(rest) && other(number);
                    let half = if filter == Filters::READ {
                        Readiness::RDHUP
                    } else {
                        Readiness::NONE
                    };
                    if both {
                        half.with(Readiness::HUP)
                    } else {
                        half
                    }
                }
                // A pipe has one direction: no writer any more, no reader any more.
                (_, Filters::READ) => Readiness::HUP,
                _ => Readiness::ERR,
            });
        }
        self.got = self.got.with(got);
    }
}

/// Whether this direction of a socket has ended, asked of a queue made for it.
pub fn has_ended(scratch: &Queue, fd: RawFd, filter: i16) -> bool {
    let add = Kevent::new(fd as usize, filter, EV_ADD | EV_ONESHOT);
    let mut events = [Kevent::default()];
    match scratch.kevent(&[add], &mut events, Some(0)) {
        Ok(1) => events[0].flags & (EV_EOF | EV_ERROR) == EV_EOF,
        _ => {
            let delete = Kevent::new(fd as usize, filter, EV_DELETE);
            let _ = scratch.kevent(&[delete], &mut [], Some(0));
            false
        }
    }
}

/// Whether an error of [`Place::update`] means that the descriptor is not open.
pub fn is_closed(e: &io::Error) -> bool {
    errno(e) == libc::EBADF
}
