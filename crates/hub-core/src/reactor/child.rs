//! Child watchers (ev_child).
//!
//! libev reaps every child with `waitpid(-1)` at SIGCHLD, and so takes the status away from whoever else
//! waits for a child of the process. Here a watcher of one process waits for its pidfd and then reaps that
//! process alone; no handler is installed. A watcher of any process (pid 0), of stops and continuations, or
//! on a kernel without pidfds, goes by SIGCHLD, and only pid 0 uses `waitpid(-1)`. Whoever reaps a process
//! delivers its status to all watchers of it.

use super::{Class, Reactor, Revents, WatcherId, watchers::Spec};
use crate::event_loop::{Mode, Readiness};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub(super) struct ChildState {
    pid: i32,
    trace: bool,
    rpid: i32,
    rstatus: i32,
    /// While it is active and waits for a pidfd.
    pidfd: Option<OwnedFd>,
    /// While it is active and goes by SIGCHLD.
    by_signal: bool,
}

impl ChildState {
    pub(super) fn new(pid: i32, trace: bool) -> Self {
        ChildState {
            pid,
            trace,
            rpid: 0,
            rstatus: 0,
            pidfd: None,
            by_signal: false,
        }
    }
}

/// A close-on-exec descriptor of a child that has not been reaped.
fn pidfd_of_child(pid: i32) -> Option<OwnedFd> {
    // SAFETY: no memory is passed; the result is a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return None;
    }
    // SAFETY: just opened, and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // A process that is not our child would be ready one day and never reapable.
    // SAFETY: `info` outlives the call.
    let known = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) == 0
    };
    known.then_some(fd)
}

impl Reactor {
    /// The process that the last event of a child watcher is of, and its wait status; zeros before.
    pub fn child_status(&self, id: WatcherId) -> (i32, i32) {
        self.with_child(id, |c| (c.rpid, c.rstatus))
            .unwrap_or((0, 0))
    }

    /// Overwrites what [`child_status`](Self::child_status) gives, as libev allows.
    pub fn set_child_status(&self, id: WatcherId, rpid: i32, rstatus: i32) {
        self.with_child(id, |c| (c.rpid, c.rstatus) = (rpid, rstatus));
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
        let pidfd = if pid != 0 && !trace {
            pidfd_of_child(pid)
        } else {
            None
        };
        if let Some(fd) = pidfd {
            let raw = fd.as_raw_fd();
            self.with_backend(|b| {
                b.watch(raw, Class::Inner.key(id.0), Readiness::READ, Mode::Level)
            })?;
            self.with_child(id, |c| c.pidfd = Some(fd));
            self.activate(id);
            return Ok(());
        }
        self.claim_signal(libc::SIGCHLD)?;
        self.with_child(id, |c| c.by_signal = true);
        self.activate(id);
        // The child may have ended before the handler was there.
        self.signals.with(|s| s.mark(libc::SIGCHLD));
        Ok(())
    }

    pub(super) fn stop_child(&self, id: WatcherId) {
        let taken = self.with_child(id, |c| (c.pidfd.take(), std::mem::take(&mut c.by_signal)));
        let Some((pidfd, by_signal)) = taken else {
            return;
        };
        if let Some(fd) = pidfd {
            self.close_pidfd(fd);
        }
        if by_signal {
            self.release_signal(libc::SIGCHLD);
        }
    }

    /// A pidfd is readable: the process has ended.
    pub(super) fn child_ready(&self, id: WatcherId) {
        // Another watcher of the same child may have reaped it for all in this very batch of events.
        let waiting = self.with_child(id, |c| c.pidfd.is_some().then_some(c.pid));
        let Some(pid) = waiting.flatten() else {
            return;
        };
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 => {}
            p if p == pid => self.child_changed(pid, status),
            // Somebody else has reaped it, or SIGCHLD is ignored: as in the standard library's subprocess,
            // the status is taken for 0.
            _ => self.child_changed(pid, 0),
        }
    }

    /// At SIGCHLD: reaps for the watchers that go by it.
    pub(super) fn reap_children(&self) {
        let mut looks: Vec<(i32, bool)> = self.watchers.with(|w| {
            let by_signal = |w: &mut super::watchers::Watchers, id| match w.spec(id) {
                Some(Spec::Child(c)) if c.by_signal => Some((c.pid, c.trace)),
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
            self.forget_pidfds(|p| p == pid);
        }
    }

    /// Stops waiting for the pidfds of processes that `over` picks; their watchers stay active.
    pub(super) fn forget_pidfds(&self, over: impl Fn(i32) -> bool) {
        let gone: Vec<OwnedFd> = self.watchers.with(|w| {
            let ids = w.children().to_vec();
            ids.into_iter()
                .filter_map(|id| match w.spec(id) {
                    Some(Spec::Child(c)) if over(c.pid) => c.pidfd.take(),
                    _ => None,
                })
                .collect()
        });
        gone.into_iter().for_each(|fd| self.close_pidfd(fd));
    }

    fn close_pidfd(&self, fd: OwnedFd) {
        let _ = self.with_backend(|b| {
            b.fd_closing(fd.as_raw_fd(), &mut Vec::new());
            Ok(())
        });
    }
}
