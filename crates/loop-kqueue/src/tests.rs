//! What is particular to kqueue; what every loop has to do is tested by the conformance suite.

use crate::KqueueLoop;
use gevent_hub_core::event_loop::{Event, Key, Loop, Mode, Readiness, Subject, Until, Watch};
use gevent_hub_core::reactor::monotonic;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

const K: Key = Key::new(1, 1);
const K2: Key = Key::new(2, 1);
const R: Readiness = Readiness::READ;
const W: Readiness = Readiness::WRITE;

fn poll(l: &mut KqueueLoop) -> Vec<Event> {
    let mut out = Vec::new();
    l.poll(Until::Now, &mut out).unwrap();
    out
}

fn ready(events: &[Event]) -> Vec<(Key, Readiness)> {
    let of = |e: &Event| match e {
        Event::Ready(k, r) => Some((*k, *r)),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

/// Polls with patience until something comes.
fn wait(l: &mut KqueueLoop) -> Vec<(Key, Readiness)> {
    let end = monotonic() + 3_000_000_000;
    let mut out = Vec::new();
    while out.is_empty() && monotonic() < end {
        l.poll(Until::At(end), &mut out).unwrap();
    }
    ready(&out)
}

#[test]
fn a_steady_edge_watcher_costs_one_change_and_one_wait_an_edge() {
    let mut l = KqueueLoop::new().unwrap();
    let (a, mut b) = UnixStream::pair().unwrap();
    l.watch(a.as_raw_fd(), K, R, Mode::Edge).unwrap();
    let before = l.counters().syscalls;
    for _ in 0..3 {
        b.write_all(b"x").unwrap();
        assert_eq!(ready(&poll(&mut l)), [(K, R)]);
    }
    assert_eq!(l.counters().syscalls - before, 3);
}

#[test]
fn both_directions_of_one_batch_are_one_event() {
    let mut l = KqueueLoop::new().unwrap();
    let (a, mut b) = UnixStream::pair().unwrap();
    b.write_all(b"x").unwrap();
    l.watch(a.as_raw_fd(), K, R.with(W), Mode::Edge).unwrap();
    assert_eq!(ready(&poll(&mut l)), [(K, R.with(W))]);
}

#[test]
fn closing_costs_no_change_where_the_kernel_forgets_what_is_closed() {
    let mut l = KqueueLoop::new().unwrap();
    let (a, _b) = UnixStream::pair().unwrap();
    l.watch(a.as_raw_fd(), K, R, Mode::Edge).unwrap();
    l.watch(a.as_raw_fd(), K2, R, Mode::Level).unwrap();
    let before = l.counters().syscalls;
    l.fd_closing(a.as_raw_fd(), &mut Vec::new());
    assert_eq!(
        l.counters().syscalls == before,
        crate::sys::Queue::FORGETS_CLOSED
    );
}

#[test]
fn a_descriptor_that_was_not_closed_after_all_is_told_to_be_silent() {
    let mut l = KqueueLoop::new().unwrap();
    let (a, mut b) = UnixStream::pair().unwrap();
    for mode in [Mode::Edge, Mode::Level] {
        l.watch(a.as_raw_fd(), K, R, mode).unwrap();
        l.fd_closing(a.as_raw_fd(), &mut Vec::new());
        b.write_all(b"x").unwrap();
        assert!(poll(&mut l).is_empty());
        assert!(poll(&mut l).is_empty());
        l.watch(a.as_raw_fd(), K, R, mode).unwrap();
        assert_eq!(ready(&poll(&mut l)), [(K, R)]);
        l.unwatch(K);
    }
}

#[test]
fn the_end_of_the_other_direction_is_asked_for_when_nobody_watches_it() {
    for (half, expected) in [(true, false), (false, true)] {
        let mut l = KqueueLoop::new().unwrap();
        let (a, b) = UnixStream::pair().unwrap();
        l.watch(a.as_raw_fd(), K, R, Mode::Level).unwrap();
        if half {
            b.shutdown(std::net::Shutdown::Write).unwrap();
        } else {
            drop(b);
        }
        let heard = wait(&mut l);
        assert!(heard[0].1.has(Readiness::RDHUP));
        assert_eq!(heard[0].1.has(Readiness::HUP), expected, "{heard:?}");
    }
}

#[test]
fn a_pipe_that_nobody_reads_is_ready_to_fail() {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors, which are ours then.
    let (r, w) = unsafe {
        assert_eq!(libc::pipe(fds.as_mut_ptr()), 0);
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    };
    drop(r);
    let mut l = KqueueLoop::new().unwrap();
    // Some kernels refuse to watch it (EPIPE).
    if l.watch(w.as_raw_fd(), K, W, Mode::Edge).unwrap() == Watch::Armed {
        let heard = wait(&mut l);
        assert!(heard[0].1.has(Readiness::ERR), "{heard:?}");
    }
}

fn sleeping() -> libc::pid_t {
    // SAFETY: the child waits to be killed.
    unsafe {
        match libc::fork() {
            0 => loop {
                libc::pause();
            },
            pid => pid,
        }
    }
}

fn kill_and_reap(pid: libc::pid_t) {
    // SAFETY: our own child; no status is asked for.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}

#[test]
fn the_end_of_a_process_is_told_once_to_everyone_who_watches_it() {
    let mut l = KqueueLoop::new().unwrap();
    let pid = sleeping();
    l.watch_subject(Subject::Process(pid), K).unwrap();
    l.watch_subject(Subject::Process(pid), K2).unwrap();
    let third = Key::new(3, 1);
    l.watch_subject(Subject::Process(pid), third).unwrap();
    l.unwatch(third);
    assert!(poll(&mut l).is_empty());
    kill_and_reap(pid);
    assert_eq!(wait(&mut l), [(K, R), (K2, R)]);
    assert!(poll(&mut l).is_empty());
    let e = l.watch_subject(Subject::Process(pid), K).unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::ESRCH));
}

#[test]
fn the_last_one_to_stop_watching_a_process_takes_its_event_away() {
    let mut l = KqueueLoop::new().unwrap();
    let pid = sleeping();
    l.watch_subject(Subject::Process(pid), K).unwrap();
    l.watch_subject(Subject::Process(pid), K2).unwrap();
    let before = l.counters().syscalls;
    l.unwatch(K);
    assert_eq!(l.counters().syscalls, before);
    l.unwatch(K2);
    assert_eq!(l.counters().syscalls, before + 1);
    kill_and_reap(pid);
    assert!(poll(&mut l).is_empty());
}

#[test]
fn a_file_tells_of_each_change_until_it_is_closed() {
    let path = std::env::temp_dir().join(format!("kqueue-subject-{}", std::process::id()));
    std::fs::write(&path, b"1").unwrap();
    let f = std::fs::File::open(&path).unwrap();
    let mut l = KqueueLoop::new().unwrap();
    l.watch_subject(Subject::File(f.as_raw_fd()), K).unwrap();
    for text in [&b"12"[..], b"123"] {
        std::fs::write(&path, text).unwrap();
        let heard = wait(&mut l);
        assert!(!heard.is_empty() && heard.iter().all(|h| *h == (K, R)));
        poll(&mut l);
    }
    l.fd_closing(f.as_raw_fd(), &mut Vec::new());
    drop(f);
    std::fs::remove_file(&path).unwrap();
    assert!(poll(&mut l).is_empty());
}
