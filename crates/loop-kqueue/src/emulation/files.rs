//! Regular files and directories: `EVFILT_VNODE`, and reading and writing, which never wait; by inotify.

use super::descriptors::{Identity, fd_of, fstat};
use super::knote::{Answer, Report};
use crate::sys::*;
use gevent_hub_core::os::check;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub struct File {
    fd: RawFd,
    filter: i16,
    identity: Identity,
    /// What is asked for.
    pub notes: u32,
    /// What has happened and was not reported.
    seen: u32,
    size: i64,
    links: libc::nlink_t,
    inotify: OwnedFd,
}

const CHANGES: u32 = libc::IN_MODIFY
    | libc::IN_ATTRIB
    | libc::IN_MOVE_SELF
    | libc::IN_DELETE_SELF
    | libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_MOVE;

impl File {
    pub fn new(change: &Kevent) -> io::Result<File> {
        let fd = fd_of(change)?;
        let s = fstat(fd)?;
        // SAFETY: no memory is passed; the descriptor is ours.
        let inotify = unsafe {
            let flags = libc::IN_CLOEXEC | libc::IN_NONBLOCK;
            OwnedFd::from_raw_fd(check(libc::inotify_init1(flags))? as RawFd)
        };
        let path = CString::new(format!("/proc/self/fd/{fd}"))?;
        // SAFETY: a terminated path.
        check(unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), path.as_ptr(), CHANGES) })?;
        Ok(File {
            fd,
            filter: change.filter,
            identity: (s.st_dev, s.st_ino),
            notes: change.fflags,
            seen: 0,
            size: s.st_size,
            links: s.st_nlink,
            inotify,
        })
    }

    /// Room to write is there always.
    pub fn source(&self) -> Option<RawFd> {
        (self.filter != EVFILT_WRITE).then(|| self.inotify.as_raw_fd())
    }

    pub fn is_same(&self) -> bool {
        fstat(self.fd).is_ok_and(|s| (s.st_dev, s.st_ino) == self.identity)
    }

    pub fn woken(&mut self) {
        let mut buffer = [0u64; 512];
        let mut mask = 0u32;
        loop {
            let size = size_of_val(&buffer);
            // SAFETY: the buffer and its size.
            let n =
                unsafe { libc::read(self.inotify.as_raw_fd(), buffer.as_mut_ptr().cast(), size) };
            if n <= 0 {
                break;
            }
            let bytes: Vec<u8> = buffer.iter().flat_map(|w| w.to_ne_bytes()).collect();
            let mut at = 0;
            // struct inotify_event: a descriptor, the mask, a cookie, the length of the name that follows.
            while at + 16 <= n as usize {
                let word =
                    |o: usize| u32::from_ne_bytes(bytes[at + o..at + o + 4].try_into().unwrap());
                mask |= word(4);
                at += 16 + word(12) as usize;
            }
        }
        self.note(mask);
    }

    fn note(&mut self, mask: u32) {
        let Ok(s) = fstat(self.fd) else { return };
        if mask & (libc::IN_MODIFY | libc::IN_CREATE | libc::IN_DELETE | libc::IN_MOVE) != 0 {
            self.seen |= NOTE_WRITE;
            if s.st_size > self.size {
                self.seen |= NOTE_EXTEND;
            }
        }
        self.size = s.st_size;
        if mask & libc::IN_MOVE_SELF != 0 {
            self.seen |= NOTE_RENAME;
        }
        let links = s.st_nlink;
        if links != self.links {
            // A name more or less is told as a change of the attributes, the last one gone too.
            self.seen |= if links == 0 { NOTE_DELETE } else { NOTE_LINK };
            self.links = links;
        } else if mask & libc::IN_ATTRIB != 0 {
            self.seen |= NOTE_ATTRIB;
        }
        if mask & libc::IN_UNMOUNT != 0 {
            self.seen |= NOTE_REVOKE;
        }
    }

    pub fn ask(&mut self, clear: bool) -> Answer {
        if !self.is_same() {
            return Answer::Closed;
        }
        let report = match self.filter {
            EVFILT_READ => {
                // SAFETY: no memory is passed.
                let position = unsafe { libc::lseek(self.fd, 0, libc::SEEK_CUR) };
                let data = fstat(self.fd).map_or(0, |s| s.st_size) - position;
                (data != 0).then_some(Report {
                    data,
                    ..Report::default()
                })
            }
            EVFILT_WRITE => Some(Report {
                data: 1,
                ..Report::default()
            }),
            _ => {
                let fflags = self.seen & self.notes;
                if clear {
                    self.seen = 0;
                }
                (fflags != 0).then_some(Report {
                    fflags,
                    ..Report::default()
                })
            }
        };
        report.map_or(Answer::Nothing, Answer::Fire)
    }
}
