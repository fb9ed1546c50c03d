//! `EV_ADD` and the other flags, receipts, errors, timeouts, room.

use super::*;
use std::io::{Read, Write};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

#[test]
fn a_level_event_repeats_until_its_condition_ends() {
    let q = Queue::open().unwrap();
    let (mut a, mut b) = pair();
    change(&q, of(&a, EVFILT_READ, EV_ADD));
    none(&q);
    b.write_all(b"abc").unwrap();
    for _ in 0..3 {
        let e = one(&q);
        assert_eq!((e.filter, e.data, e.flags & EV_EOF), (EVFILT_READ, 3, 0));
    }
    assert_eq!(a.read(&mut [0; 2]).unwrap(), 2);
    assert_eq!(one(&q).data, 1);
    assert_eq!(a.read(&mut [0; 2]).unwrap(), 1);
    none(&q);
}

#[test]
fn ev_clear_reports_each_change_once() {
    let q = Queue::open().unwrap();
    let (mut a, mut b) = pair();
    change(&q, of(&a, EVFILT_READ, EV_ADD | EV_CLEAR));
    for n in 1..3 {
        b.write_all(b"x").unwrap();
        assert_eq!(one(&q).data, n);
        none(&q);
    }
    assert_eq!(a.read(&mut [0; 8]).unwrap(), 2);
    none(&q);
    b.write_all(b"x").unwrap();
    one(&q);
}

#[test]
fn what_holds_when_it_is_added_is_reported_and_adding_again_reports_it_again() {
    let q = Queue::open().unwrap();
    let (a, mut b) = pair();
    b.write_all(b"x").unwrap();
    for _ in 0..2 {
        change(&q, of(&a, EVFILT_READ, EV_ADD | EV_CLEAR));
        one(&q);
        none(&q);
    }
}

#[test]
fn adding_again_makes_no_second_event_and_takes_the_new_udata() {
    let q = Queue::open().unwrap();
    let (a, mut b) = pair();
    for udata in [1, 2] {
        let mut c = of(&a, EVFILT_READ, EV_ADD);
        c.udata = udata;
        change(&q, c);
    }
    b.write_all(b"x").unwrap();
    assert_eq!(one(&q).udata, 2);
    change(&q, of(&a, EVFILT_READ, EV_DELETE));
    none(&q);
}

#[test]
fn ev_oneshot_deletes_the_event_when_it_is_reported() {
    let q = Queue::open().unwrap();
    let (a, mut b) = pair();
    change(&q, of(&a, EVFILT_READ, EV_ADD | EV_ONESHOT));
    b.write_all(b"x").unwrap();
    one(&q);
    none(&q);
    let gone = of(&a, EVFILT_READ, EV_DELETE);
    assert_eq!(refusal(&q, gone), Some(libc::ENOENT));
}

#[test]
fn ev_dispatch_disables_the_event_when_it_is_reported() {
    let q = Queue::open().unwrap();
    let (a, mut b) = pair();
    change(&q, of(&a, EVFILT_READ, EV_ADD | EV_DISPATCH));
    b.write_all(b"x").unwrap();
    for _ in 0..2 {
        one(&q);
        none(&q);
        change(&q, of(&a, EVFILT_READ, EV_ENABLE));
    }
}

#[test]
fn a_disabled_event_is_kept_and_not_reported() {
    let q = Queue::open().unwrap();
    let (a, mut b) = pair();
    change(&q, of(&a, EVFILT_READ, EV_ADD | EV_DISABLE));
    b.write_all(b"x").unwrap();
    none(&q);
    change(&q, of(&a, EVFILT_READ, EV_ENABLE));
    one(&q);
    change(&q, of(&a, EVFILT_READ, EV_DISABLE));
    none(&q);
    // Adding it again enables it.
    change(&q, of(&a, EVFILT_READ, EV_ADD));
    one(&q);
}

#[test]
fn ev_receipt_answers_each_change_and_drains_nothing() {
    let q = Queue::open().unwrap();
    let (a, mut b) = pair();
    b.write_all(b"x").unwrap();
    let changes = [
        of(&a, EVFILT_READ, EV_ADD | EV_RECEIPT),
        of(&a, EVFILT_WRITE, EV_DELETE | EV_RECEIPT),
    ];
    let mut out = [Kevent::default(); 4];
    let n = q.kevent(&changes, &mut out, Some(0)).unwrap();
    let errors: Vec<_> = out[..n].iter().map(|e| (e.filter, e.error())).collect();
    let expected = [(EVFILT_READ, Some(0)), (EVFILT_WRITE, Some(libc::ENOENT))];
    assert_eq!(errors, expected);
    one(&q);
}

#[test]
fn errors_of_changes_come_before_events() {
    let q = Queue::open().unwrap();
    let (a, mut b) = pair();
    b.write_all(b"x").unwrap();
    let changes = [of(&a, EVFILT_READ, EV_ADD), of(&b, EVFILT_READ, EV_ENABLE)];
    let mut out = [Kevent::default(); 4];
    assert_eq!(q.kevent(&changes, &mut out, Some(0)).unwrap(), 1);
    assert_eq!(out[0].error(), Some(libc::ENOENT));
    one(&q);
}

#[test]
fn what_is_not_there_is_refused() {
    let q = Queue::open().unwrap();
    let (a, _b) = pair();
    let closed = Kevent::new(1 << 20, EVFILT_READ, EV_ADD);
    assert_eq!(refusal(&q, closed), Some(libc::EBADF));
    let absent = of(&a, EVFILT_READ, EV_ENABLE);
    assert_eq!(refusal(&q, absent), Some(libc::ENOENT));
    let unknown = of(&a, 77, EV_ADD);
    assert_eq!(refusal(&q, unknown), Some(libc::EINVAL));
    let user = Kevent::new(5, EVFILT_USER, 0).notes(NOTE_TRIGGER);
    let e = q.kevent(&[user], &mut [], Some(0)).unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::ENOENT));
}

#[test]
fn no_more_events_than_there_is_room_for_and_the_rest_comes_next() {
    let q = Queue::open().unwrap();
    let pairs: Vec<_> = (0..5).map(|_| pair()).collect();
    for (a, b) in &pairs {
        change(&q, of(a, EVFILT_READ, EV_ADD | EV_CLEAR));
        { b }.write_all(b"x").unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let mut out = [Kevent::default(); 2];
        let n = q.kevent(&[], &mut out, Some(3000 * MS)).unwrap();
        assert!((1..=2).contains(&n));
        seen.extend(out[..n].iter().map(|e| e.ident as RawFd));
    }
    seen.sort();
    let mut all: Vec<_> = pairs.iter().map(|(a, _)| a.as_raw_fd()).collect();
    all.sort();
    assert_eq!(seen, all);
    none(&q);
}

#[test]
fn without_room_for_events_nothing_is_waited_for() {
    let q = Queue::open().unwrap();
    let start = Instant::now();
    assert_eq!(q.kevent(&[], &mut [], None).unwrap(), 0);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_timeout_is_neither_early_nor_for_ever() {
    let q = Queue::open().unwrap();
    let start = Instant::now();
    assert_eq!(events(&q, 3 * MS), []);
    assert!(start.elapsed() >= Duration::from_millis(3));
}

#[test]
fn a_queue_is_something_to_read_for_another_queue() {
    let (outer, inner) = (Queue::open().unwrap(), Queue::open().unwrap());
    let (mut a, mut b) = pair();
    change(&inner, of(&a, EVFILT_READ, EV_ADD));
    change(&outer, of(&inner, EVFILT_READ, EV_ADD));
    none(&outer);
    b.write_all(b"x").unwrap();
    for _ in 0..2 {
        assert_eq!(one(&outer).ident, inner.as_raw_fd() as usize);
        assert_eq!(one(&inner).ident, a.as_raw_fd() as usize);
    }
    a.read_exact(&mut [0]).unwrap();
    none(&inner);
    none(&outer);
}

#[test]
fn a_forked_child_does_not_inherit_the_queue() {
    if cfg!(libkqueue) {
        return;
    }
    let q = Queue::open().unwrap();
    let (a, mut b) = pair();
    change(&q, of(&a, EVFILT_READ, EV_ADD | EV_CLEAR));
    // SAFETY: the child makes system calls and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let ok = q.kevent(&[], &mut [Kevent::default()], Some(0)).is_err();
        q.abandon();
        // SAFETY: ends the child.
        unsafe { libc::_exit(if ok { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: room for the status.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0);
    b.write_all(b"x").unwrap();
    one(&q);
}
