//! The ring's own ways with the `Loop` contract; what every loop must do is in the conformance suite.
#![cfg(target_os = "linux")]

mod support;

use gevent_hub_core::event_loop::{
    Cancel, Event, Key, Loop, Mode, Op, Readiness, Start, Until, Watch,
};
use gevent_loop_uring::UringLoop;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::time::{Duration, Instant};
use support::*;

#[test]
fn an_edge_reports_changes_once_and_latches_the_end() {
    let mut l = UringLoop::new().unwrap();
    let (a, mut b) = pair();
    assert_eq!(
        l.watch(a.as_raw_fd(), Key(1), R.with(W), Mode::Edge)
            .unwrap(),
        Watch::Armed
    );
    assert_eq!(ready(&settle(&mut l), 1), W);
    b.write_all(b"x").unwrap();
    assert!(ready(&poll_for(&mut l, 1000), 1).has(R));
    assert!(settle(&mut l).is_empty(), "unread data is no change");
    b.write_all(b"y").unwrap();
    assert!(ready(&poll_for(&mut l, 1000), 1).has(R), "more data is one");
    drop(b);
    let last = ready(&poll_for(&mut l, 1000), 1);
    assert!(
        last.has(Readiness::RDHUP) && last.has(Readiness::HUP),
        "{last:?}"
    );
}

#[test]
fn a_level_repeats_while_ready_and_stops_when_read() {
    let mut l = UringLoop::new().unwrap();
    let (mut a, mut b) = pair();
    l.watch(a.as_raw_fd(), Key(1), R, Mode::Level).unwrap();
    assert!(settle(&mut l).is_empty());
    b.write_all(b"x").unwrap();
    for _ in 0..4 {
        let mut out = Vec::new();
        l.poll(Until::Now, &mut out).unwrap();
        assert_eq!((out.len(), ready(&out, 1)), (1, R));
    }
    a.read_exact(&mut [0]).unwrap();
    assert!(settle(&mut l).is_empty());
    b.write_all(b"y").unwrap();
    assert_eq!(ready(&poll_for(&mut l, 1000), 1), R);
}

#[test]
fn a_level_event_that_is_no_longer_true_is_not_told() {
    let mut l = UringLoop::new().unwrap();
    let (mut a, mut b) = pair();
    l.watch(a.as_raw_fd(), Key(1), R, Mode::Level).unwrap();
    settle(&mut l);
    b.write_all(b"x").unwrap();
    a.read_exact(&mut [0]).unwrap();
    assert!(settle(&mut l).is_empty(), "it was read between two polls");
    b.write_all(b"y").unwrap();
    assert_eq!(ready(&settle(&mut l), 1), R);
}

#[test]
fn a_level_that_wants_to_write_does_not_spin_on_half_a_hang_up() {
    let mut l = UringLoop::new().unwrap();
    let (mut a, b) = tcp_pair();
    let block = vec![0; 1 << 16];
    while a.write(&block).is_ok() {}
    b.shutdown(std::net::Shutdown::Write).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    l.watch(a.as_raw_fd(), Key(1), W, Mode::Level).unwrap();
    assert!(settle(&mut l).is_empty(), "RDHUP was not asked for");
    let before = l.counters().syscalls;
    assert!(poll_for(&mut l, 50).is_empty());
    assert!(l.counters().syscalls - before <= 3, "it sleeps");
    let mut sink = vec![0; 1 << 20];
    b.set_nonblocking(false).unwrap();
    b.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    while (&b).read(&mut sink).is_ok_and(|n| n > 0) {}
    for _ in 0..3 {
        assert!(
            ready(&poll_for(&mut l, 1000), 1).has(W),
            "and writability repeats"
        );
    }
}

#[test]
fn several_keys_watch_one_descriptor() {
    let mut l = UringLoop::new().unwrap();
    let (a, mut b) = pair();
    let fd = a.as_raw_fd();
    l.watch(fd, Key(1), R, Mode::Level).unwrap();
    l.watch(fd, Key(2), W, Mode::Level).unwrap();
    l.watch(fd, Key(3), R, Mode::Edge).unwrap();
    let out = settle(&mut l);
    assert_eq!(
        (ready(&out, 1), ready(&out, 2), ready(&out, 3)),
        (Readiness::NONE, W, Readiness::NONE)
    );
    b.write_all(b"x").unwrap();
    let out = settle(&mut l);
    assert_eq!((ready(&out, 1), ready(&out, 2), ready(&out, 3)), (R, W, R));
    l.unwatch(Key(2));
    let out = settle(&mut l);
    assert_eq!((ready(&out, 1), ready(&out, 2)), (R, Readiness::NONE));
}

#[test]
fn no_event_comes_after_unwatch_and_a_second_watch_replaces() {
    let mut l = UringLoop::new().unwrap();
    let (a, mut b) = pair();
    l.watch(a.as_raw_fd(), Key(1), R, Mode::Edge).unwrap();
    settle(&mut l);
    b.write_all(b"x").unwrap();
    l.unwatch(Key(1));
    assert!(settle(&mut l).is_empty());
    l.watch(a.as_raw_fd(), Key(1), W, Mode::Level).unwrap();
    assert_eq!(ready(&settle(&mut l), 1), W);
    l.watch(a.as_raw_fd(), Key(1), R, Mode::Level).unwrap();
    assert_eq!(ready(&settle(&mut l), 1), R);
    l.unwatch(Key(1));
    l.unwatch(Key(1));
    assert!(settle(&mut l).is_empty());
}

#[test]
fn files_are_always_ready_and_closed_descriptors_are_errors() {
    let mut l = UringLoop::new().unwrap();
    let file = File::open("/proc/self/exe").unwrap();
    assert_eq!(
        l.watch(file.as_raw_fd(), Key(1), R, Mode::Level).unwrap(),
        Watch::AlwaysReady
    );
    let null = File::open("/dev/null").unwrap();
    assert_eq!(
        l.watch(null.as_raw_fd(), Key(2), R, Mode::Edge).unwrap(),
        Watch::AlwaysReady
    );
    let e = l.watch(9999, Key(3), R, Mode::Level).unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::EBADF));
    assert!(settle(&mut l).is_empty());
}

#[test]
fn the_peer_sees_the_end_as_soon_as_a_watched_socket_is_closed() {
    for mode in [Mode::Edge, Mode::Level] {
        let mut l = UringLoop::new().unwrap();
        let (a, b) = tcp_pair();
        l.watch(a.as_raw_fd(), Key(1), R, mode).unwrap();
        settle(&mut l);
        let mut out = Vec::new();
        l.fd_closing(a.as_raw_fd(), &mut out);
        assert!(out.is_empty());
        drop(a);
        b.set_nonblocking(false).unwrap();
        b.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        assert_eq!((&b).read(&mut [0]).unwrap(), 0);
        // An unwatched one, whose cancel has not been sent yet, too.
        let (a, b) = tcp_pair();
        l.watch(a.as_raw_fd(), Key(2), R, mode).unwrap();
        settle(&mut l);
        l.unwatch(Key(2));
        l.fd_closing(a.as_raw_fd(), &mut out);
        drop(a);
        b.set_nonblocking(false).unwrap();
        b.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        assert_eq!((&b).read(&mut [0]).unwrap(), 0);
        assert!(settle(&mut l).is_empty());
    }
}

#[test]
fn operations_on_sockets_complete() {
    let mut l = UringLoop::new().unwrap();
    let (a, mut b) = tcp_pair();
    let mut buf = [0; 16];
    let mut op = recv_op(&a, &mut buf);
    assert!(matches!(start(&mut l, 1, &mut op), Start::Parked));
    assert!(settle(&mut l).is_empty());
    b.write_all(b"hello").unwrap();
    assert_eq!(done(poll_for(&mut l, 1000), 1).unwrap(), 5);
    assert_eq!(&buf[..5], b"hello");
    let mut op = send_op(&a, b"answer");
    start(&mut l, 2, &mut op);
    assert_eq!(done(poll_for(&mut l, 1000), 2).unwrap(), 6);
    // The same by messages.
    let mut iov = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    // SAFETY: all zeros is a valid header.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    (msg.msg_iov, msg.msg_iovlen) = (&mut iov, 1);
    let mut op = Op::RecvMsg {
        fd: b.as_raw_fd(),
        msg: &mut msg,
        flags: libc::MSG_DONTWAIT,
    };
    start(&mut l, 3, &mut op);
    assert_eq!(done(poll_for(&mut l, 1000), 3).unwrap(), 6);
    assert_eq!(&buf[..6], b"answer");
    let mut op = Op::SendMsg {
        fd: b.as_raw_fd(),
        msg: &msg,
        flags: 0,
    };
    start(&mut l, 4, &mut op);
    assert_eq!(done(poll_for(&mut l, 1000), 4).unwrap(), 16);
    // The end of the stream is a result of nothing.
    drop(b);
    let mut op = recv_op(&a, &mut buf);
    start(&mut l, 5, &mut op);
    assert_eq!(done(poll_for(&mut l, 1000), 5).unwrap(), 16);
    let mut op = recv_op(&a, &mut buf);
    start(&mut l, 6, &mut op);
    assert_eq!(done(poll_for(&mut l, 1000), 6).unwrap(), 0);
}

#[test]
fn files_are_opened_written_synced_read_and_looked_at() {
    let mut l = UringLoop::new().unwrap();
    let name = format!(
        "{}/uring-{}\0",
        std::env::temp_dir().display(),
        std::process::id()
    );
    let path = name.as_ptr().cast();
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    let mut op = Op::OpenAt {
        dir: libc::AT_FDCWD,
        path,
        flags,
        mode: 0o600,
    };
    start(&mut l, 1, &mut op);
    let fd = done(poll_for(&mut l, 1000), 1).unwrap() as RawFd;
    // SAFETY: just opened, ours.
    let file = unsafe { File::from_raw_fd(fd) };
    let data = *b"0123456789";
    let mut op = Op::Write {
        fd,
        buf: data.as_ptr(),
        len: 10,
        offset: -1,
    };
    start(&mut l, 2, &mut op);
    assert_eq!(done(poll_for(&mut l, 1000), 2).unwrap(), 10);
    let mut op = Op::Fsync {
        fd,
        data_only: true,
    };
    start(&mut l, 3, &mut op);
    assert_eq!(done(poll_for(&mut l, 5000), 3).unwrap(), 0);
    let mut buf = [0; 4];
    let mut op = Op::Read {
        fd,
        buf: buf.as_mut_ptr(),
        len: 4,
        offset: 3,
    };
    start(&mut l, 4, &mut op);
    assert_eq!(done(poll_for(&mut l, 1000), 4).unwrap(), 4);
    assert_eq!(&buf, b"3456");
    let mut op = Op::Read {
        fd,
        buf: buf.as_mut_ptr(),
        len: 4,
        offset: -1,
    };
    start(&mut l, 5, &mut op);
    assert_eq!(
        done(poll_for(&mut l, 1000), 5).unwrap(),
        0,
        "the position is at the end"
    );
    // SAFETY: all zeros is a valid statx.
    let mut st: libc::statx = unsafe { std::mem::zeroed() };
    let mut op = Op::Statx {
        dir: libc::AT_FDCWD,
        path,
        flags: 0,
        mask: libc::STATX_SIZE,
        out: &mut st,
    };
    start(&mut l, 6, &mut op);
    assert_eq!(done(poll_for(&mut l, 1000), 6).unwrap(), 0);
    assert_eq!(st.stx_size, 10);
    drop(file);
    std::fs::remove_file(name.trim_end_matches('\0')).unwrap();
    let mut op = Op::Statx {
        dir: libc::AT_FDCWD,
        path,
        flags: 0,
        mask: 0,
        out: &mut st,
    };
    start(&mut l, 7, &mut op);
    assert_eq!(
        done(poll_for(&mut l, 1000), 7).unwrap_err().raw_os_error(),
        Some(libc::ENOENT)
    );
}

#[test]
fn a_cancelled_receive_consumes_nothing() {
    for tcp in [false, true] {
        let mut l = UringLoop::new().unwrap();
        let (t, u) = (tcp_pair(), pair());
        let (a, b): (RawFd, &mut dyn Write) = if tcp {
            (t.0.as_raw_fd(), &mut &t.1)
        } else {
            (u.0.as_raw_fd(), &mut &u.1)
        };
        let mut buf = [0; 8];
        let mut op = Op::Recv {
            fd: a,
            buf: buf.as_mut_ptr(),
            len: 8,
            flags: 0,
        };
        // Before the kernel has it.
        start(&mut l, 1, &mut op);
        assert!(matches!(l.cancel(Key(1)), Cancel::Cancelled));
        assert!(settle(&mut l).is_empty());
        // While it waits.
        start(&mut l, 2, &mut op);
        settle(&mut l);
        assert!(matches!(l.cancel(Key(2)), Cancel::Cancelled));
        // When data has come, but has not been looked for.
        start(&mut l, 3, &mut op);
        settle(&mut l);
        b.write_all(b"precious").unwrap();
        std::thread::sleep(Duration::from_millis(5));
        match l.cancel(Key(3)) {
            Cancel::Cancelled => {
                // SAFETY: our buffer.
                let n = unsafe { libc::recv(a, buf.as_mut_ptr().cast(), 8, libc::MSG_DONTWAIT) };
                assert_eq!(n, 8);
            }
            Cancel::Finished(r) => assert_eq!(r.unwrap(), 8),
            Cancel::Pending => panic!("a receive is not in the hands of a worker"),
        }
        assert_eq!(&buf, b"precious");
        assert!(settle(&mut l).is_empty(), "no event follows a cancel");
        assert!(
            matches!(l.cancel(Key(77)), Cancel::Cancelled),
            "an unknown key is over"
        );
    }
}

#[test]
fn a_result_that_came_in_meanwhile_is_not_lost() {
    let mut l = UringLoop::new().unwrap();
    let ((a, mut b), (c, _d)) = (pair(), pair());
    let (mut one, mut two) = ([0; 4], [0; 4]);
    let (mut op1, mut op2) = (recv_op(&a, &mut one), recv_op(&c, &mut two));
    start(&mut l, 1, &mut op1);
    start(&mut l, 2, &mut op2);
    settle(&mut l);
    b.write_all(b"data").unwrap();
    // This enters the kernel, and brings the other's completion.
    assert!(matches!(l.cancel(Key(2)), Cancel::Cancelled));
    assert_eq!(done(poll_for(&mut l, 1000), 1).unwrap(), 4);
    assert_eq!(&one, b"data");
}

#[test]
fn closing_cancels_the_operations_and_tells_them() {
    let mut l = UringLoop::new().unwrap();
    let (a, _b) = tcp_pair();
    let (mut buf, mut out) = ([0; 4], Vec::new());
    let (mut op1, mut op2) = (
        recv_op(&a, &mut buf),
        Op::Poll {
            fd: a.as_raw_fd(),
            want: R,
        },
    );
    start(&mut l, 1, &mut op1);
    settle(&mut l);
    start(&mut l, 2, &mut op2);
    l.fd_closing(a.as_raw_fd(), &mut out);
    assert_eq!(out.len(), 2);
    for e in out {
        assert!(matches!(e, Event::Done(_, Err(e)) if e.raw_os_error() == Some(libc::ECANCELED)));
    }
    assert!(settle(&mut l).is_empty());
}

#[test]
fn wakes_from_other_threads_coalesce_and_outlive_the_loop() {
    let mut l = UringLoop::new().unwrap();
    let waker = l.waker();
    for _ in 0..5 {
        waker.wake();
    }
    let mut out = Vec::new();
    l.poll(Until::Forever, &mut out).unwrap();
    assert!(matches!(out[..], [Event::Woken]), "{out:?}");
    assert!(settle(&mut l).is_empty());
    let theirs = waker.clone();
    let t = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        theirs.wake();
    });
    let begun = Instant::now();
    while out.len() < 2 {
        l.poll(Until::Forever, &mut out).unwrap();
    }
    assert!(begun.elapsed() >= Duration::from_millis(25));
    t.join().unwrap();
    drop(l);
    waker.wake();
}

#[test]
fn more_completions_than_the_queue_holds_all_arrive() {
    let mut l = UringLoop::new().unwrap();
    let (a, mut b) = pair();
    b.write_all(b"x").unwrap();
    const N: u64 = 20_000;
    for k in 1..=N {
        l.watch(a.as_raw_fd(), Key(k), R, Mode::Edge).unwrap();
    }
    let mut seen = vec![false; N as usize + 1];
    for _ in 0..200 {
        let mut out = Vec::new();
        l.poll(Until::Now, &mut out).unwrap();
        for e in out {
            if let Event::Ready(k, r) = e {
                assert!(r.has(R));
                seen[k.0 as usize] = true;
            }
        }
    }
    assert_eq!(seen.iter().filter(|s| **s).count() as u64, N);
    // They are still armed, however the kernel ended them.
    seen.fill(false);
    b.write_all(b"y").unwrap();
    for _ in 0..200 {
        let mut out = Vec::new();
        l.poll(Until::Now, &mut out).unwrap();
        for e in out {
            if let Event::Ready(k, _) = e {
                seen[k.0 as usize] = true;
            }
        }
    }
    assert_eq!(seen.iter().filter(|s| **s).count() as u64, N);
}

#[test]
fn a_ping_pong_enters_the_kernel_once_an_iteration_for_all() {
    const N: usize = 32;
    let mut l = UringLoop::new().unwrap();
    let pairs: Vec<_> = (0..N).map(|_| tcp_pair()).collect();
    let mut bufs = vec![[0u8; 64]; N];
    let mut ops: Vec<Op> = pairs
        .iter()
        .zip(&mut bufs)
        .map(|((a, _), b)| recv_op(a, b))
        .collect();
    for (i, op) in ops.iter_mut().enumerate() {
        start(&mut l, i as u64, op);
    }
    settle(&mut l);
    let before = l.counters();
    let rounds = 50;
    for _ in 0..rounds {
        for (_, b) in &pairs {
            assert_eq!((&*b).write(b"ping").unwrap(), 4);
        }
        let mut got = 0;
        while got < N {
            let mut out = Vec::new();
            l.poll(Until::Forever, &mut out).unwrap();
            for e in out {
                let Event::Done(Key(k), Ok(4)) = e else {
                    panic!("{e:?}")
                };
                start(&mut l, k, &mut ops[k as usize]);
                got += 1;
            }
        }
    }
    let after = l.counters();
    // One more for each 20 that came in at once.
    assert!(
        after.syscalls - before.syscalls <= after.polls - before.polls + 2,
        "{after:?}"
    );
    assert!(after.polls - before.polls <= 2 * rounds, "{after:?}");
    // With nothing to do, a poll that does not wait costs no system call at all.
    for i in 0..N {
        assert!(matches!(l.cancel(Key(i as u64)), Cancel::Cancelled));
    }
    settle(&mut l);
    let before = l.counters().syscalls;
    settle(&mut l);
    assert_eq!(l.counters().syscalls, before);
}

#[test]
fn edge_registrations_cost_the_wait_and_one_question_for_all() {
    let mut l = UringLoop::new().unwrap();
    let pairs: Vec<_> = (0..16).map(|_| pair()).collect();
    for (k, (a, _)) in pairs.iter().enumerate() {
        l.watch(a.as_raw_fd(), Key(k as u64), R, Mode::Edge)
            .unwrap();
    }
    settle(&mut l);
    let before = l.counters();
    for _ in 0..100 {
        for (_, b) in &pairs {
            (&*b).write_all(b"x").unwrap();
        }
        let mut out = Vec::new();
        l.poll(Until::Forever, &mut out).unwrap();
        for (k, (a, _)) in pairs.iter().enumerate() {
            assert_eq!(ready(&out, k as u64), R);
            (&*a).read_exact(&mut [0]).unwrap();
        }
    }
    let after = l.counters();
    assert_eq!(after.polls - before.polls, 100);
    // The question is whether the data is urgent.
    assert!(
        after.syscalls - before.syscalls <= 202,
        "{before:?} {after:?}"
    );
}

#[test]
fn after_a_fork_both_go_on_by_themselves() {
    for told in [true, false] {
        let mut l = UringLoop::new().unwrap();
        let ((a, mut b), (c, mut d)) = (pair(), pair());
        let mut buf = [0; 4];
        let mut op = recv_op(&c, &mut buf);
        l.watch(a.as_raw_fd(), Key(1), R, Mode::Edge).unwrap();
        l.watch(a.as_raw_fd(), Key(2), R, Mode::Level).unwrap();
        start(&mut l, 3, &mut op);
        let waker = l.waker();
        settle(&mut l);
        in_child(|| {
            if told {
                l.after_fork().unwrap();
            }
            b.write_all(b"x").unwrap();
            let out = settle(&mut l);
            assert!(ready(&out, 1).has(R) && ready(&out, 2).has(R));
            waker.wake();
            assert!(settle(&mut l).iter().any(|e| matches!(e, Event::Woken)));
            d.write_all(b"done").unwrap();
            let all = settle(&mut l);
            done(all, 3).unwrap() == 4
        });
        // The bytes are shared, but nothing of the loop is: the parent's is as it was.
        let out = settle(&mut l);
        assert!(ready(&out, 1).has(R) && ready(&out, 2).has(R));
        assert!(
            !out.iter()
                .any(|e| matches!(e, Event::Woken | Event::Done(..))),
            "{out:?}"
        );
        d.write_all(b"mine").unwrap();
        assert_eq!(done(poll_for(&mut l, 1000), 3).unwrap(), 4);
        assert_eq!(&buf, b"mine");
    }
}

#[test]
fn a_loop_dropped_in_a_child_leaves_the_parents_alone() {
    let mut l = Some(UringLoop::new().unwrap());
    let (a, mut b) = pair();
    l.as_mut()
        .unwrap()
        .watch(a.as_raw_fd(), Key(1), R, Mode::Edge)
        .unwrap();
    settle(l.as_mut().unwrap());
    in_child(|| {
        drop(l.take());
        true
    });
    b.write_all(b"x").unwrap();
    assert_eq!(ready(&poll_for(l.as_mut().unwrap(), 1000), 1), R);
}

#[test]
fn dropping_the_loop_ends_operations_first() {
    let (a, mut b) = pair();
    let mut buf = Box::new([0; 8]);
    {
        let mut l = UringLoop::new().unwrap();
        let mut op = recv_op(&a, &mut buf[..]);
        start(&mut l, 1, &mut op);
        settle(&mut l);
        drop(l);
    }
    b.write_all(b"late").unwrap();
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(*buf, [0; 8], "nobody writes there any more");
}

#[test]
fn the_loop_can_be_polled_from_outside() {
    let mut l = UringLoop::new().unwrap();
    let (a, mut b) = pair();
    l.watch(a.as_raw_fd(), Key(1), R, Mode::Edge).unwrap();
    settle(&mut l);
    let readable = |l: &mut UringLoop, ms| {
        let mut p = libc::pollfd {
            fd: l.as_raw_fd().unwrap(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: a valid struct.
        unsafe { libc::poll(&mut p, 1, ms) == 1 }
    };
    assert!(!readable(&mut l, 0));
    b.write_all(b"x").unwrap();
    assert!(readable(&mut l, 1000));
    assert_eq!(ready(&poll_for(&mut l, 1000), 1), R);
    assert!(!readable(&mut l, 0));
    // A level-triggered registration goes on, in which nothing is left to be done by a poll.
    l.watch(a.as_raw_fd(), Key(2), R, Mode::Level).unwrap();
    for _ in 0..2 {
        assert!(!poll_for(&mut l, 1000).is_empty());
        assert!(readable(&mut l, 1000));
    }
    std::io::Read::read_exact(&mut &a, &mut [0]).unwrap();
    settle(&mut l);
    assert!(!readable(&mut l, 0));
    b.write_all(b"x").unwrap();
    assert!(readable(&mut l, 1000));
}
