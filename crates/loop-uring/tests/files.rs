//! Files on the ring: positions, what blocks, what is cancelled, and what a forked child does with it.
#![cfg(target_os = "linux")]

mod support;

use gevent_hub_core::event_loop::{Cancel, Event, Key, Loop, Op, Until};
use gevent_loop_uring::UringLoop;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use support::*;

/// A path of this test's own, which is removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let name = format!("gevent-uring-{name}-{}", std::process::id());
        Place(std::env::temp_dir().join(name))
    }

    fn c(&self) -> CString {
        CString::new(self.0.as_os_str().as_bytes()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn read_op(fd: RawFd, buf: &mut [u8]) -> Op {
    Op::Read {
        fd,
        buf: buf.as_mut_ptr(),
        len: buf.len(),
        offset: -1,
    }
}

fn write_op(fd: RawFd, buf: &[u8]) -> Op {
    Op::Write {
        fd,
        buf: buf.as_ptr(),
        len: buf.len(),
        offset: -1,
    }
}

/// Polls until `n` operations are over; their results by key.
fn results(l: &mut UringLoop, n: usize) -> Vec<(u64, std::io::Result<u32>)> {
    let mut all = Vec::new();
    while all.len() < n {
        let events = poll_for(l, 2000);
        assert!(!events.is_empty(), "{} of {n} are over", all.len());
        for e in events {
            if let Event::Done(k, r) = e {
                all.push((k.0, r));
            }
        }
    }
    all
}

/// A read at the file's position into each of `bufs`.
fn reads(file: &File, bufs: &mut [Vec<u8>]) -> Vec<Op> {
    bufs.iter_mut()
        .map(|b| read_op(file.as_raw_fd(), b))
        .collect()
}

/// Starts `ops` by the keys 0, 1, 2 and so on.
fn start_all(l: &mut UringLoop, ops: &mut [Op]) {
    for (k, op) in ops.iter_mut().enumerate() {
        start(l, k as u64, op);
    }
}

#[test]
fn reads_at_the_files_position_each_get_their_own_part() {
    const N: usize = 200;
    let mut l = UringLoop::new().unwrap();
    let place = Place::new("parts");
    let data: Vec<u8> = (0..N).flat_map(|n| [n as u8; 4096]).collect();
    std::fs::write(&place.0, &data).unwrap();
    let file = File::open(&place.0).unwrap();
    // SAFETY: a plain call. Out of memory, if the kernel likes, so that workers would read at the same time.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    let mut bufs = vec![vec![255u8; 4096]; N];
    let mut ops = reads(&file, &mut bufs);
    start_all(&mut l, &mut ops);
    for (_, r) in results(&mut l, N) {
        assert_eq!(r.unwrap(), 4096);
    }
    let firsts: Vec<u8> = bufs.iter().map(|b| b[0]).collect();
    let expected: Vec<u8> = (0..N).map(|n| n as u8).collect();
    assert_eq!(
        firsts, expected,
        "each its own, in the order they were asked for"
    );
    assert!(bufs.iter().all(|b| b.iter().all(|x| *x == b[0])));
}

#[test]
fn writes_at_the_files_position_follow_each_other() {
    const N: usize = 200;
    let mut l = UringLoop::new().unwrap();
    let place = Place::new("log");
    let file = File::create(&place.0).unwrap();
    let lines: Vec<Vec<u8>> = (0..N)
        .map(|n| format!("line {n:06}\n").into_bytes())
        .collect();
    let mut ops: Vec<_> = lines
        .iter()
        .map(|line| write_op(file.as_raw_fd(), line))
        .collect();
    start_all(&mut l, &mut ops);
    // One of those that wait for their turn is taken back.
    assert!(matches!(l.cancel(Key(150)), Cancel::Cancelled));
    for (_, r) in results(&mut l, N - 1) {
        assert_eq!(r.unwrap(), 12);
    }
    let mut expected = lines.clone();
    expected.remove(150);
    assert_eq!(std::fs::read(&place.0).unwrap(), expected.concat());
}

#[test]
fn closing_ends_reads_that_wait_for_their_turn() {
    let mut l = UringLoop::new().unwrap();
    let place = Place::new("closing");
    std::fs::write(&place.0, vec![7; 1 << 16]).unwrap();
    let file = File::open(&place.0).unwrap();
    let mut bufs = vec![vec![0u8; 4096]; 8];
    let mut ops = reads(&file, &mut bufs);
    start_all(&mut l, &mut ops);
    let mut out = Vec::new();
    l.poll(Until::Now, &mut out).unwrap();
    l.fd_closing(file.as_raw_fd(), &mut out);
    while out.len() < 8 {
        l.poll(Until::At(now() + 1_000_000_000), &mut out).unwrap();
    }
    for e in out {
        match e {
            Event::Done(_, Ok(n)) => assert_eq!(n, 4096),
            Event::Done(_, Err(e)) => assert_eq!(e.raw_os_error(), Some(libc::ECANCELED)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_file_that_cannot_be_tried_is_read_whatever_its_flags() {
    let mut l = UringLoop::new().unwrap();
    // procfs knows no reads that do not block, and with O_NONBLOCK the kernel would not go further by itself.
    for flags in [0, libc::O_NONBLOCK] {
        let mut options = std::fs::OpenOptions::new();
        let file = options
            .read(true)
            .custom_flags(flags)
            .open("/proc/self/status")
            .unwrap();
        let mut buf = [0u8; 64];
        let mut op = read_op(file.as_raw_fd(), &mut buf);
        start(&mut l, 1, &mut op);
        let before = l.counters().syscalls;
        assert_eq!(done(poll_for(&mut l, 2000), 1).unwrap(), 64);
        assert!(buf.starts_with(b"Name:"));
        assert!(l.counters().syscalls - before < 10, "it does not spin");
    }
}

#[test]
fn opening_a_fifo_waits_for_its_other_end_and_can_be_cancelled() {
    let mut l = UringLoop::new().unwrap();
    let place = Place::new("fifo");
    let path = place.c();
    // SAFETY: a terminated path.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let mut open = Op::OpenAt {
        dir: libc::AT_FDCWD,
        path: path.as_ptr(),
        flags: libc::O_WRONLY,
        mode: 0,
    };
    start(&mut l, 1, &mut open);
    assert!(poll_for(&mut l, 30).is_empty(), "nobody reads it");
    match l.cancel(Key(1)) {
        Cancel::Cancelled => {}
        Cancel::Pending => {
            let e = done(poll_for(&mut l, 2000), 1).unwrap_err();
            assert!(
                matches!(e.raw_os_error(), Some(libc::ECANCELED | libc::EINTR)),
                "{e}"
            );
        }
        Cancel::Finished(result) => panic!("{result:?}"),
    }
    start(&mut l, 2, &mut open);
    assert!(poll_for(&mut l, 30).is_empty());
    let mut nonblocking = std::fs::OpenOptions::new();
    nonblocking.read(true).custom_flags(libc::O_NONBLOCK);
    let mut reader = nonblocking.open(&place.0).unwrap();
    let fd = done(poll_for(&mut l, 2000), 2).unwrap();
    // SAFETY: just opened for us.
    let mut writer = unsafe { File::from_raw_fd(fd as RawFd) };
    writer.write_all(b"through").unwrap();
    let mut got = [0; 7];
    reader.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"through");
}

#[test]
fn a_cancelled_read_of_a_pipe_leaves_what_comes_later() {
    let mut l = UringLoop::new().unwrap();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let mut buf = [0u8; 8];
    // A blocking pipe: the ring waits for it, and not a thread.
    let mut op = read_op(reader.as_raw_fd(), &mut buf);
    start(&mut l, 1, &mut op);
    assert!(poll_for(&mut l, 20).is_empty());
    assert!(matches!(l.cancel(Key(1)), Cancel::Cancelled));
    writer.write_all(b"later").unwrap();
    let mut got = [0; 5];
    reader.read_exact(&mut got).unwrap();
    assert_eq!((&got, &buf), (b"later", &[0; 8]));
}

#[test]
fn accepts_and_connects_that_are_cancelled_take_nothing() {
    let mut l = UringLoop::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut accept = Op::Accept {
        fd: listener.as_raw_fd(),
        addr: std::ptr::null_mut(),
        len: std::ptr::null_mut(),
    };
    for k in 0..100 {
        start(&mut l, k, &mut accept);
        settle(&mut l);
        let connecting = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = match l.cancel(Key(k)) {
            Cancel::Cancelled => listener.accept().unwrap().0,
            // SAFETY: the ring's, given to us.
            Cancel::Finished(fd) => unsafe {
                std::net::TcpStream::from_raw_fd(fd.unwrap() as RawFd)
            },
            Cancel::Pending => panic!("an accept is not in the hands of a worker"),
        };
        assert_eq!(
            accepted.peer_addr().unwrap(),
            connecting.local_addr().unwrap()
        );
    }
    assert!(settle(&mut l).is_empty());
}

#[test]
fn a_child_repeats_no_write_and_shares_no_position() {
    let mut l = UringLoop::new().unwrap();
    let (place, source) = (Place::new("once"), Place::new("source"));
    std::fs::write(&source.0, b"one two ").unwrap();
    let mut log = File::create(&place.0).unwrap();
    let mut input = File::open(&source.0).unwrap();
    let mut buf = [0u8; 4];
    let mut write = write_op(log.as_raw_fd(), b"record\n");
    let mut read = read_op(input.as_raw_fd(), &mut buf);
    let mut there = [0u8; 4];
    let mut read_there = Op::Read {
        fd: input.as_raw_fd(),
        buf: there.as_mut_ptr(),
        len: 4,
        offset: 4,
    };
    start(&mut l, 1, &mut write);
    start(&mut l, 2, &mut read);
    start(&mut l, 3, &mut read_there);
    in_child(|| {
        l.after_fork().unwrap();
        let mut all = results(&mut l, 3);
        all.sort_by_key(|(k, _)| *k);
        let errno = |n: usize| all[n].1.as_ref().err().and_then(|e| e.raw_os_error());
        errno(0) == Some(libc::ECANCELED)
            && errno(1) == Some(libc::ECANCELED)
            && all[2].1.as_ref().is_ok_and(|n| *n == 4)
    });
    for (_, r) in results(&mut l, 3) {
        assert!(r.is_ok(), "{r:?}");
    }
    assert_eq!((&buf, &there), (b"one ", b"two "));
    assert_eq!(input.stream_position().unwrap(), 4);
    assert_eq!(log.stream_position().unwrap(), 7);
    log.flush().unwrap();
    assert_eq!(std::fs::read(&place.0).unwrap(), b"record\n");
}
