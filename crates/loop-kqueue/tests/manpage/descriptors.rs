//! `EVFILT_READ`, `EVFILT_WRITE` and `EVFILT_EXCEPT` of sockets and pipes.

use super::*;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

fn pipe() -> (File, File) {
    let mut fds: [RawFd; 2] = [0; 2];
    // SAFETY: room for two descriptors, which are ours then.
    unsafe {
        assert_eq!(libc::pipe(fds.as_mut_ptr()), 0);
        (File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1]))
    }
}

#[test]
fn a_half_close_is_the_end_of_reading_alone() {
    let q = Queue::open().unwrap();
    let (a, mut b) = pair();
    change(&q, of(&a, EVFILT_READ, EV_ADD));
    change(&q, of(&a, EVFILT_WRITE, EV_ADD));
    b.write_all(b"last").unwrap();
    b.shutdown(Shutdown::Write).unwrap();
    let all = events(&q, 3000 * MS);
    assert_eq!(all.len(), 2);
    for e in all {
        assert_eq!(e.flags & EV_EOF != 0, e.filter == EVFILT_READ, "{e:?}");
        if e.filter == EVFILT_READ {
            assert_eq!((e.data, e.fflags), (4, 0));
        }
    }
}

#[test]
fn a_full_close_is_the_end_of_both() {
    let q = Queue::open().unwrap();
    let (a, b) = pair();
    change(&q, of(&a, EVFILT_READ, EV_ADD));
    change(&q, of(&a, EVFILT_WRITE, EV_ADD));
    drop(b);
    let all = events(&q, 3000 * MS);
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|e| e.flags & EV_EOF != 0), "{all:?}");
}

#[test]
fn a_refused_connection_ends_with_an_error_and_an_unconnected_socket_has_nothing_to_report() {
    let q = Queue::open().unwrap();
    let port = {
        let l = TcpListener::bind("127.0.0.1:0").unwrap();
        l.local_addr().unwrap().port()
    };
    // SAFETY: the descriptor is ours.
    let s = unsafe {
        let s = OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        libc::fcntl(s.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK);
        s
    };
    change(&q, of(&s, EVFILT_WRITE, EV_ADD | EV_CLEAR));
    none(&q);
    // SAFETY: plain data that outlives the call.
    unsafe {
        let mut addr: libc::sockaddr_in = std::mem::zeroed();
        addr.sin_family = libc::AF_INET as libc::sa_family_t;
        addr.sin_port = port.to_be();
        addr.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
        let size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        libc::connect(s.as_raw_fd(), (&raw const addr).cast(), size);
    }
    let e = one(&q);
    assert!(e.flags & EV_EOF != 0 && e.fflags != 0, "{e:?}");
    // The error itself is still there.
    let mut error: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: an int and its size.
    unsafe {
        let out = (&raw mut error).cast();
        libc::getsockopt(
            s.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            out,
            &mut len,
        );
    }
    assert_eq!(error, libc::ECONNREFUSED);
}

#[test]
fn a_listener_counts_its_backlog() {
    let q = Queue::open().unwrap();
    let l = TcpListener::bind("127.0.0.1:0").unwrap();
    change(&q, of(&l, EVFILT_READ, EV_ADD));
    none(&q);
    let _both: Vec<_> = (0..2)
        .map(|_| TcpStream::connect(l.local_addr().unwrap()).unwrap())
        .collect();
    let end = Instant::now() + Duration::from_secs(3);
    while one(&q).data != 2 {
        assert!(Instant::now() < end);
    }
}

#[test]
fn room_to_write_is_no_news_to_read_and_the_other_way_round() {
    let q = Queue::open().unwrap();
    let (a, mut b) = pair();
    change(&q, of(&a, EVFILT_WRITE, EV_ADD | EV_CLEAR));
    assert!(one(&q).data > 0);
    b.write_all(b"x").unwrap();
    none(&q);
    change(&q, of(&a, EVFILT_READ, EV_ADD | EV_CLEAR));
    assert_eq!(one(&q).filter, EVFILT_READ);
}

#[test]
fn a_full_socket_becomes_writable_when_the_peer_reads() {
    let q = Queue::open().unwrap();
    let (mut a, mut b) = pair();
    while a.write(&[0; 4096]).is_ok() {}
    change(&q, of(&a, EVFILT_WRITE, EV_ADD));
    none(&q);
    b.set_nonblocking(true).unwrap();
    while b.read(&mut [0; 65536]).is_ok_and(|n| n > 0) {}
    assert_eq!(one(&q).filter, EVFILT_WRITE);
}

#[test]
fn pipes_have_an_end_on_either_side() {
    let q = Queue::open().unwrap();
    let (r, mut w) = pipe();
    change(&q, of(&r, EVFILT_READ, EV_ADD));
    w.write_all(b"ab").unwrap();
    assert_eq!(one(&q).data, 2);
    drop(w);
    let e = one(&q);
    assert_eq!((e.data, e.flags & EV_EOF), (2, EV_EOF));
    drop(r);
    let (r, w) = pipe();
    change(&q, of(&w, EVFILT_WRITE, EV_ADD));
    assert_eq!(one(&q).flags & EV_EOF, 0);
    drop(r);
    assert_eq!(one(&q).flags & EV_EOF, EV_EOF);
}

#[test]
fn closing_a_descriptor_deletes_its_events() {
    if cfg!(libkqueue) {
        return;
    }
    let q = Queue::open().unwrap();
    let (a, mut b) = pair();
    let copy = a.try_clone().unwrap();
    change(&q, of(&a, EVFILT_READ, EV_ADD));
    drop(a);
    // The description lives on under another number, which was never added.
    b.write_all(b"x").unwrap();
    none(&q);
    change(&q, of(&copy, EVFILT_READ, EV_ADD));
    assert_eq!(one(&q).ident, copy.as_raw_fd() as usize);
}

#[test]
fn a_number_that_was_closed_and_used_again_is_another_descriptor() {
    if cfg!(libkqueue) {
        return;
    }
    let q = Queue::open().unwrap();
    let (a, _b) = pair();
    let (c, mut d) = pair();
    let number = 700;
    // SAFETY: a number that no other test takes.
    let dup = |from: &UnixStream| unsafe {
        assert_eq!(libc::dup2(from.as_raw_fd(), number), number);
        OwnedFd::from_raw_fd(number)
    };
    let first = dup(&a);
    change(&q, of(&first, EVFILT_READ, EV_ADD));
    drop(first);
    let second = dup(&c);
    d.write_all(b"x").unwrap();
    let absent = of(&second, EVFILT_READ, EV_DELETE);
    assert_eq!(refusal(&q, absent), Some(libc::ENOENT));
    change(&q, of(&second, EVFILT_READ, EV_ADD));
    one(&q);
}

#[test]
fn urgent_data_is_an_exceptional_condition() {
    let Some(filter) = EVFILT_EXCEPT else { return };
    let q = Queue::open().unwrap();
    let l = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(l.local_addr().unwrap()).unwrap();
    let (mut b, _) = l.accept().unwrap();
    change(&q, of(&a, filter, EV_ADD | EV_CLEAR).notes(NOTE_OOB));
    b.write_all(b"ordinary").unwrap();
    none(&q);
    // SAFETY: one byte.
    unsafe { libc::send(b.as_raw_fd(), c"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(one(&q).fflags & NOTE_OOB, NOTE_OOB);
}
