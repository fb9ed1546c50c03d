//! What the tests of the ring share.
#![allow(dead_code, reason = "each file of tests uses its part")]

use gevent_hub_core::event_loop::{Event, Key, Loop, Op, Readiness, Start, Until};
use gevent_loop_uring::UringLoop;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;

pub const R: Readiness = Readiness::READ;
pub const W: Readiness = Readiness::WRITE;

pub fn now() -> u64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid out pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

pub fn poll_for(l: &mut UringLoop, ms: u64) -> Vec<Event> {
    let (mut out, deadline) = (Vec::new(), now() + ms * 1_000_000);
    while out.is_empty() && now() < deadline {
        l.poll(Until::At(deadline), &mut out).unwrap();
    }
    out
}

/// Polls without waiting until nothing comes any more.
pub fn settle(l: &mut UringLoop) -> Vec<Event> {
    let mut all = Vec::new();
    for _ in 0..5 {
        l.poll(Until::Now, &mut all).unwrap();
    }
    all
}

/// What `key` was told.
pub fn ready(events: &[Event], key: u64) -> Readiness {
    let of = |e: &Event| match e {
        Event::Ready(k, r) if *k == Key(key) => *r,
        _ => Readiness::NONE,
    };
    events.iter().map(of).fold(Readiness::NONE, Readiness::with)
}

pub fn done(events: Vec<Event>, key: u64) -> std::io::Result<u32> {
    let mut found = None;
    for e in events {
        if let Event::Done(k, r) = e
            && k == Key(key)
        {
            assert!(found.is_none(), "one result an operation");
            found = Some(r);
        }
    }
    found.expect("the operation is over")
}

pub fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let l = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(l.local_addr().unwrap()).unwrap();
    let b = l.accept().unwrap().0;
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

pub fn start(l: &mut UringLoop, key: u64, op: &mut Op) -> Start {
    // SAFETY: each test keeps its operation and memory until it is over.
    unsafe { l.start(Key(key), Pin::new_unchecked(op)) }
}

pub fn recv_op(fd: &impl AsRawFd, buf: &mut [u8]) -> Op {
    Op::Recv {
        fd: fd.as_raw_fd(),
        buf: buf.as_mut_ptr(),
        len: buf.len(),
        flags: 0,
    }
}

pub fn send_op(fd: &impl AsRawFd, buf: &[u8]) -> Op {
    Op::Send {
        fd: fd.as_raw_fd(),
        buf: buf.as_ptr(),
        len: buf.len(),
        flags: 0,
    }
}

/// Runs `body` in a forked child and wants it to succeed.
pub fn in_child(body: impl FnOnce() -> bool) {
    // SAFETY: the child runs `body` and leaves.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(false);
        // SAFETY: leaves at once.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = 0;
    // SAFETY: our child.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(status, 0);
}
