//! Stat watchers (ev_stat): a path is looked at with lstat(2) at an interval, and, where the system can tell
//! (`hint`), also as soon as something happens to it or in its directory.

use super::hint::Hint;
use super::{Class, Reactor, Revents, WatcherId, watchers::Spec};
use crate::timer::{Due, Nanos, TimerKey};
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// libev's DEF_STAT_INTERVAL.
const DEFAULT_INTERVAL: Nanos = 5_007_489_100;
/// libev's MIN_STAT_INTERVAL.
const MIN_INTERVAL: Nanos = 107_489_100;
/// Attributes of a path at one look; `None` when there was no such file.
pub type Attributes = Option<libc::stat>;

pub(super) struct StatState {
    path: PathBuf,
    interval: Nanos,
    attr: Attributes,
    prev: Attributes,
    timer: Option<TimerKey>,
    /// What tells when a look is worth it.
    hint: Option<Hint>,
}

impl StatState {
    pub(super) fn new(path: PathBuf, interval: Nanos) -> Self {
        StatState {
            path,
            interval,
            attr: None,
            prev: None,
            timer: None,
            hint: None,
        }
    }
}

pub(super) fn c_path(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

pub(super) fn look(path: &Path) -> Attributes {
    let path = c_path(path)?;
    let mut out = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: a terminated path and room for the result; read only when it was filled.
    unsafe {
        if libc::lstat(path.as_ptr(), out.as_mut_ptr()) != 0 {
            return None;
        }
        let mut out = out.assume_init();
        // libev marks a missing file by st_nlink 0, so an open one never has it.
        out.st_nlink = out.st_nlink.max(1);
        Some(out)
    }
}

/// The parts below a second of the times of modification and of change.
fn nanos(s: &libc::stat) -> (libc::c_long, libc::c_long) {
    #[cfg(not(target_os = "netbsd"))]
    return (s.st_mtime_nsec, s.st_ctime_nsec);
    #[cfg(target_os = "netbsd")]
    return (s.st_mtimensec, s.st_ctimensec);
}

fn same(a: &Attributes, b: &Attributes) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            let key = |s: &libc::stat| {
                (
                    (s.st_dev, s.st_ino, s.st_mode, s.st_nlink),
                    (s.st_uid, s.st_gid, s.st_rdev, s.st_size, s.st_atime),
                    (s.st_mtime, s.st_ctime, nanos(s)),
                )
            };
            key(a) == key(b)
        }
        _ => false,
    }
}

impl Reactor {
    /// The attributes of a stat watcher's path at the last look, and before the last change.
    pub fn stat_attributes(&self, id: WatcherId) -> (Attributes, Attributes) {
        self.with_stat(id, |s| (s.attr, s.prev))
            .unwrap_or((None, None))
    }

    /// The path of a stat watcher and its interval in nanoseconds; from the start on, the one that is used.
    pub fn stat_path(&self, id: WatcherId) -> Option<(PathBuf, Nanos)> {
        self.with_stat(id, |s| (s.path.clone(), s.interval))
    }

    /// Looks now, without an event (`ev_stat_stat`).
    pub fn stat_now(&self, id: WatcherId) {
        self.with_stat(id, |s| s.attr = look(&s.path));
    }

    fn with_stat<R>(&self, id: WatcherId, f: impl FnOnce(&mut StatState) -> R) -> Option<R> {
        self.watchers.with(|w| match w.spec(id) {
            Some(Spec::Stat(s)) => Some(f(s)),
            _ => None,
        })
    }

    fn set_next_look(&self, id: WatcherId) {
        let Some(interval) = self.with_stat(id, |s| s.interval) else {
            return;
        };
        let due = Due {
            tag: super::timers::STAT,
            word: id.0.0,
        };
        let key = self
            .timers
            .with(|t| t.start(self.now.get().saturating_add(interval), due));
        self.with_stat(id, |s| s.timer = Some(key));
    }

    pub(super) fn start_stat(&self, id: WatcherId) {
        self.with_stat(id, |s| {
            s.interval = match s.interval {
                0 => DEFAULT_INTERVAL,
                short => short.max(MIN_INTERVAL),
            };
        });
        self.start_hint(id);
        self.stat_now(id);
        self.set_next_look(id);
        self.activate(id);
    }

    pub(super) fn stop_stat(&self, id: WatcherId) {
        if let Some(Some(key)) = self.with_stat(id, |s| s.timer.take()) {
            self.timers.with(|t| t.stop(key));
        }
        self.stop_hint(id);
    }

    fn start_hint(&self, id: WatcherId) {
        let Some(path) = self.with_stat(id, |s| s.path.clone()) else {
            return;
        };
        let hint = self.with_backend(|b| Ok(Hint::new(b, Class::Inner.key(id.0), &path)));
        self.with_stat(id, |s| s.hint = hint.ok().flatten());
    }

    fn stop_hint(&self, id: WatcherId) {
        if let Some(Some(hint)) = self.with_stat(id, |s| s.hint.take()) {
            let _ = self.with_backend(|b| {
                hint.stop(b, Class::Inner.key(id.0));
                Ok(())
            });
        }
    }

    /// The kernel says that something happened to the path or near it.
    pub(super) fn hint_ready(&self, id: WatcherId) {
        if let Some((Some(mut hint), path)) =
            self.with_stat(id, |s| (s.hint.take(), s.path.clone()))
        {
            let _ = self.with_backend(|b| {
                hint.heard(b, Class::Inner.key(id.0), &path);
                Ok(())
            });
            self.with_stat(id, |s| s.hint = Some(hint));
        }
        self.compare(id);
    }

    /// Its interval is over (`stat_timer_cb`).
    pub(super) fn look_at_stat(&self, id: WatcherId) {
        self.set_next_look(id);
        self.compare(id);
    }

    fn compare(&self, id: WatcherId) {
        let changed = self.with_stat(id, |s| {
            let now = look(&s.path);
            if same(&now, &s.attr) {
                return false;
            }
            s.prev = std::mem::replace(&mut s.attr, now);
            true
        });
        if changed == Some(true) {
            self.feed(id, Revents::STAT);
        }
    }

    fn stats(&self) -> Vec<WatcherId> {
        self.watchers.with(|w| {
            let all = w
                .slab
                .iter()
                .filter(|(_, w)| matches!(w.spec, Spec::Stat(_)));
            all.map(|(key, _)| WatcherId(key)).collect()
        })
    }

    /// In a forked child: hints are shared with the parent, or gone, so it gets its own.
    pub(super) fn renew_hints(&self) {
        for id in self.stats() {
            if self.is_active(id) {
                self.stop_hint(id);
                self.start_hint(id);
            }
        }
    }
}
