//! Child watchers (ev_child).
//!
//! libev reaps every child with `waitpid(-1)` at SIGCHLD, and so takes the status away from whoever else
//! waits for a child of the process. Here a watcher of one process waits for its pidfd and then reaps that
//! process alone; no handler is installed. A loop that can watch processes (kqueue) does so without a
//! descriptor. A watcher of any process (pid 0), of stops and continuations, or on a system that has neither,
//! goes by SIGCHLD, and only pid 0 uses `waitpid(-1)`. Whoever reaps a process delivers its status to all
//! watchers of it.

use super::{Class, Reactor, Revents, WatcherId, watchers::Spec};
use crate::event_loop::{Mode, Readiness, Subject};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// How an active watcher learns of the end of its process.
#[derive(Default)]
enum Way {
    /// Not at all, or it has.
    #[default]
    None,
    /// The loop watches the process.
    Loop,
    /// The loop watches a descriptor of the process.
    Pidfd(OwnedFd),
    /// By SIGCHLD.
    Signal,
}

pub(super) struct ChildState {
    pid: i32,
    trace: bool,
    rpid: i32,
    rstatus: i32,
    way: Way,
}

impl ChildState {
    pub(super) fn new(pid: i32, trace: bool) -> Self {
        ChildState {
            pid,
            trace,
            rpid: 0,
            rstatus: 0,
            way: Way::None,
        }
    }
}

/// A close-on-exec descriptor of a process; `None` where there is no such thing.
#[cfg(target_os = "linux")]
fn pidfd(pid: i32) -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: no memory is passed; the result is a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: just opened, and nobody else's.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(not(target_os = "linux"))]
fn pidfd(_: i32) -> Option<OwnedFd> {
    None
}

/// Whether `pid` is a child of ours that nobody has reaped. A process that is not would end one day and never
/// be reapable.
fn is_child(pid: i32) -> bool {
    // SAFETY: `info` outlives the call.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) == 0
    }
}

/// The wait status of a child that has ended, where a sandbox refuses the call behind waitpid(2). What nobody
/// may ask for is no success: then it is that of `exit(255)`.
fn reap_by_waitid(pid: i32) -> i32 {
    const UNKNOWN: i32 = 255 << 8;
    #[cfg(target_os = "linux")]
    // SAFETY: `info` outlives the call, and what is read of it belongs to a child's end.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG;
        if libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) != 0
            || info.si_pid() != pid
        {
            return UNKNOWN;
        }
        match info.si_code {
            libc::CLD_EXITED => (info.si_status() & 0xff) << 8,
            libc::CLD_DUMPED => info.si_status() | 0x80,
            _ => info.si_status(),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        UNKNOWN
    }
}

impl Reactor {
    /// The process that the last event of a child watcher is of, and its wait status; zeros before.
    pub fn child_status(&self, id: WatcherId) -> (i32, i32) {
        self.with_child(id, |c| (c.rpid, c.rstatus))
            .unwrap_or((0, 0))
    }

    /// The process that a child watcher watches, or 0 for any.
    pub fn child_pid(&self, id: WatcherId) -> Option<i32> {
        self.with_child(id, |c| c.pid)
    }

    fn with_child<R>(&self, id: WatcherId, f: impl FnOnce(&mut ChildState) -> R) -> Option<R> {
        self.watchers.with(|w| match w.spec(id) {
            Some(Spec::Child(c)) => Some(f(c)),
            _ => None,
        })
    }

    pub(super) fn start_child(&self, id: WatcherId) -> io::Result<()> {
        let Some((pid, trace)) = self.with_child(id, |c| (c.pid, c.trace)) else {
            return Ok(());
        };
        let way = if pid != 0 && !trace && is_child(pid) {
            self.watch_child(id, pid)?
        } else {
            Way::None
        };
        let by_signal = matches!(way, Way::None);
        if by_signal {
            self.claim_signal(libc::SIGCHLD)?;
        }
        self.with_child(id, |c| c.way = if by_signal { Way::Signal } else { way });
        self.activate(id);
        if by_signal {
            // The child may have ended before the handler was there.
            self.signals.with(|s| s.mark(libc::SIGCHLD));
        }
        Ok(())
    }

    /// Has the loop watch a child, if there is a way.
    fn watch_child(&self, id: WatcherId, pid: i32) -> io::Result<Way> {
        let key = Class::Inner.key(id.0);
        if self
            .with_backend(|b| b.watch_subject(Subject::Process(pid), key))
            .is_ok()
        {
            return Ok(Way::Loop);
        }
        let Some(fd) = pidfd(pid) else {
            return Ok(Way::None);
        };
        let raw = fd.as_raw_fd();
        self.with_backend(|b| b.watch(raw, key, Readiness::READ, Mode::Level))?;
        Ok(Way::Pidfd(fd))
    }

    pub(super) fn stop_child(&self, id: WatcherId) {
        if let Some(way) = self.with_child(id, |c| std::mem::take(&mut c.way)) {
            self.leave(id, way);
        }
    }

    fn leave(&self, id: WatcherId, way: Way) {
        let _ = self.with_backend(|b| {
            match &way {
                Way::Loop => b.unwatch(Class::Inner.key(id.0)),
                Way::Pidfd(fd) => b.fd_closing(fd.as_raw_fd(), &mut Vec::new()),
                Way::Signal | Way::None => {}
            }
            Ok(())
        });
        if matches!(way, Way::Signal) {
            self.release_signal(libc::SIGCHLD);
        }
    }

    /// The process of a watcher has ended.
    pub(super) fn child_ready(&self, id: WatcherId) {
        // Another watcher of the same child may have reaped it for all in this very batch of events.
        let waiting = self.with_child(id, |c| match c.way {
            Way::Loop => Some((c.pid, 0)),
            Way::Pidfd(_) => Some((c.pid, libc::WNOHANG)),
            Way::Signal | Way::None => None,
        });
        let Some((pid, flags)) = waiting.flatten() else {
            return;
        };
        let mut status = 0;
        // A kqueue may tell of the end a moment before the status can be had, and tells once: so this waits.
        let (reaped, errno) = loop {
            // SAFETY: `status` outlives the call.
            let p = unsafe { libc::waitpid(pid, &mut status, flags) };
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            if p != -1 || errno != libc::EINTR {
                break (p, errno);
            }
        };
        match reaped {
            0 => {}
            p if p == pid => self.child_changed(pid, status),
            -1 if errno != libc::ECHILD => self.child_changed(pid, reap_by_waitid(pid)),
            // Somebody else has reaped it, or SIGCHLD is ignored: as in the standard library's subprocess,
            // the status is taken for 0.
            _ => self.child_changed(pid, 0),
        }
    }

    /// At SIGCHLD: reaps for the watchers that go by it.
    pub(super) fn reap_children(&self) {
        let mut looks: Vec<(i32, bool)> = self.watchers.with(|w| {
            let by_signal = |w: &mut super::watchers::Watchers, id| match w.spec(id) {
                Some(Spec::Child(c)) if matches!(c.way, Way::Signal) => Some((c.pid, c.trace)),
                _ => None,
            };
            let ids = w.children().to_vec();
            ids.into_iter().filter_map(|id| by_signal(w, id)).collect()
        });
        looks.sort_unstable();
        looks.dedup();
        let any = looks.iter().any(|(pid, _)| *pid == 0);
        let trace = looks
            .iter()
            .any(|(pid, trace)| *trace && (*pid == 0 || any));
        if any {
            looks = vec![(0, trace)];
        }
        for (pid, trace) in looks {
            let flags = libc::WNOHANG
                | if trace {
                    libc::WUNTRACED | libc::WCONTINUED
                } else {
                    0
                };
            loop {
                let mut status = 0;
                // SAFETY: `status` outlives the call.
                let p =
                    unsafe { libc::waitpid(if pid == 0 { -1 } else { pid }, &mut status, flags) };
                if p <= 0 {
                    break;
                }
                self.child_changed(p, status);
            }
        }
    }

    /// Delivers a status to whoever watches `pid` (`child_reap`).
    fn child_changed(&self, pid: i32, status: i32) {
        let ended = !(libc::WIFSTOPPED(status) || libc::WIFCONTINUED(status));
        self.watchers.with(|w| {
            for id in w.children().to_vec() {
                let Some(Spec::Child(c)) = w.spec(id) else {
                    continue;
                };
                if (c.pid == pid || c.pid == 0) && (ended || c.trace) {
                    (c.rpid, c.rstatus) = (pid, status);
                    w.feed(id, Revents::CHILD);
                }
            }
        });
        if ended {
            self.forget_children(|p| p == pid);
        }
    }

    /// Stops waiting for the ends of processes that `over` picks; their watchers stay active.
    pub(super) fn forget_children(&self, over: impl Fn(i32) -> bool) {
        let gone: Vec<(WatcherId, Way)> = self.watchers.with(|w| {
            let ids = w.children().to_vec();
            ids.into_iter()
                .filter_map(|id| match w.spec(id) {
                    Some(Spec::Child(c)) if over(c.pid) && !matches!(c.way, Way::Signal) => {
                        Some((id, std::mem::take(&mut c.way)))
                    }
                    _ => None,
                })
                .collect()
        });
        gone.into_iter().for_each(|(id, way)| self.leave(id, way));
    }
}
