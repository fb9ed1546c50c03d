//! The epoll sets behind a queue, and what an event of them names.

use gevent_hub_core::os::{check, errno};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::OnceLock;

/// Names one registration; never used again.
pub type Token = u64;

/// The token of the descriptor that user events ring.
pub const BELL: Token = 0;
/// The token of the descriptor that is readable while the active list is not empty.
pub const LEFT_OVER: Token = 1;
/// The tokens of the nested sets in the main one.
const NESTED: Token = 2;
/// The first token of a knote.
pub const FIRST: Token = 16;

/// Which set a knote's descriptor is in: one for each kind of wake, so that room to write does not pass for
/// news to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Read,
    Write,
    Urgent,
}

impl Kind {
    fn events(self) -> u32 {
        let what = match self {
            Kind::Read => libc::EPOLLIN | libc::EPOLLRDHUP,
            Kind::Write => libc::EPOLLOUT,
            Kind::Urgent => libc::EPOLLPRI,
        };
        (what | libc::EPOLLET) as u32
    }
}

fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; the descriptor is ours.
    unsafe {
        let fd = check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// A close-on-exec, non-blocking eventfd.
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; the descriptor is ours.
    unsafe {
        let fd = check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

fn control(
    epoll: &OwnedFd,
    op: libc::c_int,
    fd: RawFd,
    events: u32,
    token: Token,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: token };
    // SAFETY: `event` outlives the call.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), op, fd, &mut event) }).map(drop)
}

/// A main set, for what is read. The sets of the other kinds are nested in it, and made when they are needed:
/// sets cannot be nested deeply, and queues may be watched by queues.
pub struct Sets {
    main: OwnedFd,
    nested: [OnceLock<OwnedFd>; 2],
}

impl Sets {
    pub fn new() -> io::Result<Self> {
        Ok(Sets {
            main: epoll()?,
            nested: [const { OnceLock::new() }; 2],
        })
    }

    fn set(&self, kind: Kind) -> io::Result<&OwnedFd> {
        let number = match kind {
            Kind::Read => return Ok(&self.main),
            Kind::Write => 0,
            Kind::Urgent => 1,
        };
        if let Some(set) = self.nested[number].get() {
            return Ok(set);
        }
        let set = epoll()?;
        let (op, events) = (libc::EPOLL_CTL_ADD, libc::EPOLLIN as u32);
        let token = NESTED + number as Token;
        control(&self.main, op, set.as_raw_fd(), events, token)?;
        Ok(self.nested[number].get_or_init(|| set))
    }

    /// Adds one of the queue's own descriptors to the main set.
    pub fn add_own(&self, fd: &OwnedFd, edge: bool, token: Token) -> io::Result<()> {
        let edge = if edge { libc::EPOLLET } else { 0 };
        let events = (libc::EPOLLIN | edge) as u32;
        control(
            &self.main,
            libc::EPOLL_CTL_ADD,
            fd.as_raw_fd(),
            events,
            token,
        )
    }

    /// Registers `fd`, or registers it anew: then it wakes at once if it is ready.
    pub fn arm(&self, kind: Kind, fd: RawFd, token: Token) -> io::Result<()> {
        let set = self.set(kind)?;
        match control(set, libc::EPOLL_CTL_ADD, fd, kind.events(), token) {
            Err(e) if errno(&e) == libc::EEXIST => {
                control(set, libc::EPOLL_CTL_MOD, fd, kind.events(), token)
            }
            result => result,
        }
    }

    /// Ends a registration. It may fail when the descriptor was closed: then it is gone already, or lives on
    /// behind another number, and its token means nothing any more.
    pub fn disarm(&self, kind: Kind, fd: RawFd) {
        if let Ok(set) = self.set(kind) {
            let _ = control(set, libc::EPOLL_CTL_DEL, fd, 0, 0);
        }
    }

    /// Waits for `timeout` nanoseconds at most, and gives the tokens that woke.
    pub fn wait(&self, timeout: Option<u64>, tokens: &mut Vec<Token>) -> io::Result<()> {
        let mut buffer = [libc::epoll_event { events: 0, u64: 0 }; 128];
        let n = wait_nanos(&self.main, &mut buffer, timeout)?;
        for event in &buffer[..n] {
            match event.u64 {
                set @ NESTED..FIRST => self.drain((set - NESTED) as usize, tokens)?,
                token => tokens.push(token),
            }
        }
        Ok(())
    }

    fn drain(&self, number: usize, tokens: &mut Vec<Token>) -> io::Result<()> {
        let Some(set) = self.nested[number].get() else {
            return Ok(());
        };
        let mut buffer = [libc::epoll_event { events: 0, u64: 0 }; 128];
        loop {
            let n = wait_nanos(set, &mut buffer, Some(0))?;
            tokens.extend(buffer[..n].iter().map(|e| e.u64));
            if n < buffer.len() {
                return Ok(());
            }
        }
    }
}

impl AsRawFd for Sets {
    fn as_raw_fd(&self) -> RawFd {
        self.main.as_raw_fd()
    }
}

/// epoll_pwait2(2), or epoll_wait(2) where that is missing, rounded up to milliseconds.
fn wait_nanos(
    epoll: &OwnedFd,
    buffer: &mut [libc::epoll_event],
    timeout: Option<u64>,
) -> io::Result<usize> {
    let (fd, room) = (epoll.as_raw_fd(), buffer.len() as libc::c_int);
    if let Some(nanos @ 1..) = timeout {
        // The kernel's timespec: two 64-bit numbers on every architecture.
        let time = [
            (nanos / 1_000_000_000) as i64,
            (nanos % 1_000_000_000) as i64,
        ];
        // SAFETY: as much room as is said; the time outlives the call; no signal mask.
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                fd,
                buffer.as_mut_ptr(),
                room,
                time.as_ptr(),
                ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        if n >= 0 {
            return Ok(n as usize);
        }
        let e = io::Error::last_os_error();
        if !matches!(errno(&e), libc::ENOSYS | libc::EPERM) {
            return Err(e);
        }
    }
    let millis = timeout.map_or(-1, |nanos| {
        nanos.div_ceil(1_000_000).min(i32::MAX as u64) as libc::c_int
    });
    // SAFETY: as much room as is said.
    check(unsafe { libc::epoll_wait(fd, buffer.as_mut_ptr(), room, millis) }).map(|n| n as usize)
}
