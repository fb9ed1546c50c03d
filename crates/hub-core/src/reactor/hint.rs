//! Hints that a path has changed: the loop's own watching of files where it can (kqueue), else inotify.
//! Without either there is none, and a stat watcher goes by its interval alone.

use super::stat::{c_path, look};
use crate::event_loop::{Key, Loop, Subject};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// What tells of changes of one path.
pub(super) enum Hint {
    /// Open descriptors of the file and of its directory, which the loop watches.
    Files(Vec<OwnedFd>),
    #[cfg(target_os = "linux")]
    Inotify(OwnedFd),
}

impl Hint {
    /// A hint for `path`, heard of by `key`.
    pub(super) fn new(backend: &mut dyn Loop, key: Key, path: &Path) -> Option<Hint> {
        let files = watch_files(backend, key, path);
        if !files.is_empty() {
            return Some(Hint::Files(files));
        }
        #[cfg(target_os = "linux")]
        return inotify::new(backend, key, path).map(Hint::Inotify);
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// Watches what the path is by now.
    pub(super) fn heard(&mut self, backend: &mut dyn Loop, key: Key, path: &Path) {
        match self {
            Hint::Files(files) => {
                stop_files(backend, key, files);
                *files = watch_files(backend, key, path);
            }
            #[cfg(target_os = "linux")]
            Hint::Inotify(fd) => {
                inotify::drain(fd);
                inotify::set_marks(fd, path);
            }
        }
    }

    /// Ends it.
    pub(super) fn stop(mut self, backend: &mut dyn Loop, key: Key) {
        match &mut self {
            Hint::Files(files) => stop_files(backend, key, files),
            #[cfg(target_os = "linux")]
            Hint::Inotify(fd) => backend.fd_closing(fd.as_raw_fd(), &mut Vec::new()),
        }
    }
}

/// The directory in which `path` is.
fn directory(path: &Path) -> Option<&Path> {
    path.parent().map(|p| {
        if p.as_os_str().is_empty() {
            Path::new(".")
        } else {
            p
        }
    })
}

#[cfg(target_vendor = "apple")]
const FOR_EVENTS: i32 = libc::O_EVTONLY;
#[cfg(not(target_vendor = "apple"))]
const FOR_EVENTS: i32 = libc::O_RDONLY;

/// Opens a file or a directory to watch it. Other kinds are left alone: opening a fifo is seen at its other end.
fn open(path: &Path) -> Option<OwnedFd> {
    let kind = look(path)?.st_mode & libc::S_IFMT;
    if kind != libc::S_IFREG && kind != libc::S_IFDIR {
        return None;
    }
    let path = c_path(path)?;
    let flags = FOR_EVENTS | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: a terminated path; the descriptor is ours.
    unsafe {
        let fd = libc::open(path.as_ptr(), flags);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
    }
}

fn watch_files(backend: &mut dyn Loop, key: Key, path: &Path) -> Vec<OwnedFd> {
    let mut files = Vec::new();
    // The directory first: without it nothing tells that the path comes to be, or becomes another file.
    for path in [directory(path), Some(path)].into_iter().flatten() {
        let Some(fd) = open(path) else { continue };
        if backend
            .watch_subject(Subject::File(fd.as_raw_fd()), key)
            .is_err()
        {
            break;
        }
        files.push(fd);
    }
    files
}

fn stop_files(backend: &mut dyn Loop, key: Key, files: &mut Vec<OwnedFd>) {
    backend.unwatch(key);
    for fd in files.drain(..) {
        backend.fd_closing(fd.as_raw_fd(), &mut Vec::new());
    }
}

#[cfg(target_os = "linux")]
mod inotify {
    use super::{c_path, directory};
    use crate::event_loop::{Key, Loop, Mode, Readiness};
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    use std::path::Path;

    /// What may change attributes of a path, seen from itself or from its directory.
    const CHANGES: u32 = libc::IN_ATTRIB
        | libc::IN_MODIFY
        | libc::IN_CREATE
        | libc::IN_DELETE
        | libc::IN_DELETE_SELF
        | libc::IN_MOVE
        | libc::IN_MOVE_SELF
        | libc::IN_DONT_FOLLOW;

    pub(super) fn new(backend: &mut dyn Loop, key: Key, path: &Path) -> Option<OwnedFd> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        // SAFETY: just made, and nobody else's.
        let fd = (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })?;
        backend
            .watch(fd.as_raw_fd(), key, Readiness::READ, Mode::Level)
            .ok()?;
        set_marks(&fd, path);
        Some(fd)
    }

    /// Has `hint` watch the path, which may be another file by now, and its directory.
    pub(super) fn set_marks(hint: &OwnedFd, path: &Path) {
        for path in [Some(path), directory(path)].into_iter().flatten() {
            if let Some(path) = c_path(path) {
                // SAFETY: a terminated path. A failure leaves the interval.
                unsafe { libc::inotify_add_watch(hint.as_raw_fd(), path.as_ptr(), CHANGES) };
            }
        }
    }

    /// Takes out what it has to say.
    pub(super) fn drain(hint: &OwnedFd) {
        let mut buffer = [0u8; 4096];
        loop {
            // SAFETY: the buffer and its size.
            let n =
                unsafe { libc::read(hint.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            if n <= 0 {
                break;
            }
        }
    }
}
