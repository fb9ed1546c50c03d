//! kevent(2) by the rules of its man page (FreeBSD's, where systems differ), asked of what this system has: the
//! kernel's own on macOS and BSD, on Linux the emulation, or libkqueue with `--cfg libkqueue`.

mod changes;
mod descriptors;
mod files;
mod others;

use gevent_loop_kqueue::sys::*;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// A millisecond.
const MS: u64 = 1_000_000;

fn of(fd: &impl AsRawFd, filter: i16, flags: u16) -> Kevent {
    Kevent::new(fd.as_raw_fd() as usize, filter, flags)
}

/// One change, without looking for events.
fn change(q: &Queue, c: Kevent) {
    assert_eq!(q.kevent(&[c], &mut [], Some(0)).unwrap(), 0);
}

/// The errno of a change that is refused: the call's, and with room for it an event's.
fn refusal(q: &Queue, c: Kevent) -> Option<i32> {
    let e = q.kevent(&[c], &mut [], Some(0)).unwrap_err();
    let mut out = [Kevent::default()];
    assert_eq!(q.kevent(&[c], &mut out, Some(0)).unwrap(), 1);
    assert_eq!(out[0].error(), e.raw_os_error());
    assert_eq!((out[0].ident, out[0].filter), (c.ident, c.filter));
    e.raw_os_error()
}

fn events(q: &Queue, timeout: u64) -> Vec<Kevent> {
    let mut out = [Kevent::default(); 16];
    let n = q.kevent(&[], &mut out, Some(timeout)).unwrap();
    out[..n].to_vec()
}

/// The one event that comes in time.
fn one(q: &Queue) -> Kevent {
    let all = events(q, 3000 * MS);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

fn none(q: &Queue) {
    assert_eq!(events(q, 15 * MS), []);
}

fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    (a, b)
}
