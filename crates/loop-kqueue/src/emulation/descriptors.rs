//! `EVFILT_READ`, `EVFILT_WRITE` and `EVFILT_EXCEPT` of what can be polled: sockets, pipes, terminals.

use super::knote::{Answer, Report};
use super::sets::Kind;
use crate::sys::*;
use gevent_hub_core::os::{check, socket_option};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// The device and the inode behind a descriptor: another one says that the number was used again.
pub type Identity = (libc::dev_t, libc::ino_t);

pub fn fstat(fd: RawFd) -> io::Result<libc::stat> {
    let mut s = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: room for the result, read only when it was filled.
    unsafe {
        check(libc::fstat(fd, s.as_mut_ptr()))?;
        Ok(s.assume_init())
    }
}

pub fn fd_of(change: &Kevent) -> io::Result<RawFd> {
    RawFd::try_from(change.ident)
        .ok()
        .filter(|fd| *fd >= 0)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    /// A socket that has to be connected.
    Stream,
    /// Any other socket.
    Datagram,
    Pipe,
    Other,
}

pub struct Descriptor {
    pub fd: RawFd,
    pub kind: Kind,
    identity: Identity,
    what: Type,
}

/// What poll(2) says of `fd` now.
fn poll(fd: RawFd, events: i16) -> i16 {
    let mut p = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one pollfd, which outlives the call.
    unsafe { libc::poll(&mut p, 1, 0) };
    p.revents
}

fn ioctl(fd: RawFd, request: libc::Ioctl) -> Option<i64> {
    let mut value: libc::c_int = 0;
    // SAFETY: these requests write an int.
    (unsafe { libc::ioctl(fd, request, &raw mut value) } == 0).then_some(i64::from(value))
}

/// Connections in the backlog of a listening TCP socket.
fn backlog(fd: RawFd) -> i64 {
    // SAFETY: plain data for which zeros are valid, with its size.
    unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
        let out = (&raw mut info).cast();
        if libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, out, &mut len) == 0 {
            i64::from(info.tcpi_unacked).max(1)
        } else {
            1
        }
    }
}

impl Descriptor {
    /// `None` for a file, whose readiness is another matter.
    pub fn new(change: &Kevent) -> io::Result<Option<Descriptor>> {
        let fd = fd_of(change)?;
        let s = fstat(fd)?;
        let what = match s.st_mode & libc::S_IFMT {
            libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK => return Ok(None),
            libc::S_IFSOCK => match socket_option(fd, libc::SO_TYPE) {
                Some(libc::SOCK_STREAM | libc::SOCK_SEQPACKET) => Type::Stream,
                _ => Type::Datagram,
            },
            libc::S_IFIFO => Type::Pipe,
            _ => Type::Other,
        };
        let kind = match change.filter {
            EVFILT_READ => Kind::Read,
            EVFILT_WRITE => Kind::Write,
            _ if change.fflags & NOTE_OOB != 0 => Kind::Urgent,
            _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        Ok(Some(Descriptor {
            fd,
            kind,
            identity: (s.st_dev, s.st_ino),
            what,
        }))
    }

    pub fn is_same(&self) -> bool {
        fstat(self.fd).is_ok_and(|s| (s.st_dev, s.st_ino) == self.identity)
    }

    pub fn ask(&self) -> Answer {
        let asked = match self.kind {
            Kind::Read => libc::POLLIN | libc::POLLRDHUP,
            Kind::Write => libc::POLLOUT | libc::POLLRDHUP,
            Kind::Urgent => libc::POLLPRI,
        };
        let got = poll(self.fd, asked);
        if !self.is_same() {
            return Answer::Closed;
        }
        // A stream that was never connected hangs up, for Linux; for a BSD there is nothing to report yet.
        let never_connected = self.what == Type::Stream
            && got & libc::POLLHUP != 0
            && got & (libc::POLLRDHUP | libc::POLLERR) == 0;
        if never_connected {
            return Answer::Nothing;
        }
        let report = match self.kind {
            Kind::Read => self.reading(got),
            Kind::Write => self.writing(got),
            Kind::Urgent => (got & libc::POLLPRI != 0).then_some(Report {
                fflags: NOTE_OOB,
                ..Report::default()
            }),
        };
        report.map_or(Answer::Nothing, Answer::Fire)
    }

    fn error(got: i16) -> u32 {
        if got & libc::POLLERR != 0 {
            libc::EIO as u32
        } else {
            0
        }
    }

    fn reading(&self, got: i16) -> Option<Report> {
        let end = match self.what {
            Type::Stream => got & (libc::POLLRDHUP | libc::POLLHUP) != 0,
            Type::Pipe | Type::Other => got & libc::POLLHUP != 0,
            Type::Datagram => false,
        };
        if !end && got & (libc::POLLIN | libc::POLLERR) == 0 {
            return None;
        }
        let data = ioctl(self.fd, libc::FIONREAD).unwrap_or_else(|| {
            if self.what == Type::Stream {
                backlog(self.fd)
            } else {
                1
            }
        });
        Some(Report {
            flags: if end { EV_EOF } else { 0 },
            fflags: if end { Self::error(got) } else { 0 },
            data,
        })
    }

    fn writing(&self, got: i16) -> Option<Report> {
        let end = match self.what {
            Type::Stream => got & libc::POLLHUP != 0,
            Type::Pipe => got & libc::POLLERR != 0,
            Type::Other => got & libc::POLLHUP != 0,
            Type::Datagram => false,
        };
        if !end && got & (libc::POLLOUT | libc::POLLERR) == 0 {
            return None;
        }
        let error = if self.what == Type::Pipe {
            0
        } else {
            Self::error(got)
        };
        Some(Report {
            flags: if end { EV_EOF } else { 0 },
            fflags: if end { error } else { 0 },
            data: self.room().max(1),
        })
    }

    /// Bytes that can be written.
    fn room(&self) -> i64 {
        if self.what == Type::Pipe {
            // SAFETY: no memory is passed.
            let size = unsafe { libc::fcntl(self.fd, libc::F_GETPIPE_SZ) };
            return i64::from(size) - ioctl(self.fd, libc::FIONREAD).unwrap_or(0);
        }
        let size = socket_option(self.fd, libc::SO_SNDBUF).map_or(0, i64::from);
        size - ioctl(self.fd, libc::TIOCOUTQ).unwrap_or(0)
    }
}
