//! Kernels that lack something, refuse, or are short of memory; and more than a ring has room for.
#![cfg(target_os = "linux")]

mod support;

use gevent_hub_core::event_loop::{Cancel, Event, How, Key, Loop, Mode, Op, Until};
use gevent_loop_uring::{Lacking, Refused, UringLoop};
use std::io;
use std::os::fd::AsRawFd;
use support::*;

fn with(names: &'static [&'static str], errors: &[i32]) -> io::Result<UringLoop> {
    let errors = errors.to_vec();
    UringLoop::lacking(Lacking { names, errors })
}

fn refused(made: io::Result<UringLoop>) -> (String, i32) {
    let e = made.err().expect("refused");
    let text = e.to_string();
    let inner = e.get_ref().and_then(|e| e.downcast_ref::<Refused>());
    (text, inner.expect("a refusal").errno)
}

#[test]
fn a_kernel_without_what_is_needed_is_refused_by_its_name() {
    for (lacks, text) in [
        (&["ext_arg"][..], "Linux 5.11"),
        (&["nodrop"], "Linux 5.11"),
        (&["fast_poll"], "Linux 5.11"),
        (&["rsrc_tags"], "Linux 5.13"),
        (&["accept"], "socket operations are missing"),
        (&["poll_add"], "socket operations are missing"),
    ] {
        let (said, errno) = refused(with(lacks, &[]));
        assert!(said.contains(text), "{lacks:?}: {said}");
        assert_eq!(errno, libc::ENOSYS);
    }
}

#[test]
fn what_is_only_better_is_done_without() {
    let lacks = &["no_sqarray", "defer_taskrun", "min_timeout", "no_iowait"][..];
    for lacks in [lacks, &["cqe_skip"], &["openat"], &["statx"], &["fsync"]] {
        let l = with(lacks, &[]).unwrap();
        let paths = !["openat", "statx", "fsync"].contains(&lacks[0]);
        let expected = if paths { How::Native } else { How::Offloaded };
        assert_eq!((l.caps().path, l.caps().file), (expected, How::Native));
    }
}

#[test]
fn with_little_memory_the_ring_is_smaller_and_with_none_it_is_refused() {
    let mut l = with(&[], &[libc::ENOMEM; 6]).unwrap();
    // Eight entries: everything goes through them all the same.
    let pairs: Vec<_> = (0..100).map(|_| pair()).collect();
    let mut bufs = vec![[0u8; 1]; 100];
    let mut ops: Vec<_> = pairs
        .iter()
        .zip(&mut bufs)
        .map(|((a, _), b)| recv_op(a, b))
        .collect();
    for (k, op) in ops.iter_mut().enumerate() {
        start(&mut l, k as u64, op);
    }
    settle(&mut l);
    for (_, b) in &pairs {
        use std::io::Write;
        (&*b).write_all(b"x").unwrap();
    }
    let mut over = 0;
    while over < 100 {
        let events = poll_for(&mut l, 1000);
        assert!(!events.is_empty(), "after {over}");
        over += events
            .iter()
            .filter(|e| matches!(e, Event::Done(_, Ok(1))))
            .count();
    }
    let (said, errno) = refused(with(&[], &[libc::ENOMEM; 7]));
    assert!(
        said.contains("io_uring_setup(2)") && said.contains("no memory"),
        "{said}"
    );
    assert_eq!(errno, libc::ENOMEM);
    // Any other refusal is final, and an EINVAL asks with fewer flags.
    assert_eq!(refused(with(&[], &[libc::EPERM])).1, libc::EPERM);
    assert!(with(&[], &[libc::EINVAL; 4]).is_ok());
    assert_eq!(refused(with(&[], &[libc::EINVAL; 5])).1, libc::EINVAL);
}

/// From now on the kernel answers the system call `number` of this process with `errno`.
fn forbid(number: libc::c_long, errno: i32) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD, 0, 0, 0),
        step(EQUAL, 0, 1, number as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: a filter of that many steps, which the kernel copies.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program),
            0
        );
    }
}

#[test]
fn a_filter_is_named_by_the_call_that_it_forbids() {
    for (number, name, errno) in [
        (libc::SYS_io_uring_setup, "io_uring_setup(2)", libc::EPERM),
        (libc::SYS_io_uring_setup, "io_uring_setup(2)", libc::ENOSYS),
        (
            libc::SYS_io_uring_register,
            "io_uring_register(2)",
            libc::EPERM,
        ),
        (libc::SYS_io_uring_enter, "io_uring_enter(2)", libc::EPERM),
    ] {
        in_child(|| {
            forbid(number, errno);
            let (said, number) = refused(UringLoop::new());
            said.contains(name) && said.contains("os error") && number == errno
        });
    }
    assert!(UringLoop::new().is_ok(), "only the children were filtered");
}

#[test]
fn a_storm_of_cancels_ends_every_operation_once() {
    const N: u64 = 20_000;
    let mut l = UringLoop::new().unwrap();
    let (a, mut b) = pair();
    let mut bufs = vec![[0u8; 1]; N as usize];
    let mut ops: Vec<_> = bufs.iter_mut().map(|buf| recv_op(&a, buf)).collect();
    for round in 0..3 {
        for (k, op) in ops.iter_mut().enumerate() {
            start(&mut l, k as u64, op);
            if round == 1 && k % 7 == 0 {
                // Some before the kernel has them.
                assert!(matches!(l.cancel(Key(k as u64)), Cancel::Cancelled));
                start(&mut l, k as u64, op);
            }
        }
        if round != 2 {
            assert!(settle(&mut l).is_empty());
        }
        for k in 0..N {
            assert!(matches!(l.cancel(Key(k)), Cancel::Cancelled), "{k}");
        }
        assert!(settle(&mut l).is_empty());
    }
    // None of them took anything, and the ring works.
    std::io::Write::write_all(&mut b, b"x").unwrap();
    start(&mut l, 1, &mut ops[1]);
    assert_eq!(done(poll_for(&mut l, 1000), 1).unwrap(), 1);
}

#[test]
fn more_operations_end_at_once_than_the_queue_holds() {
    const N: u64 = 20_000;
    let mut l = UringLoop::new().unwrap();
    let (a, mut b) = pair();
    let mut ops: Vec<_> = (0..N)
        .map(|_| Op::Poll {
            fd: a.as_raw_fd(),
            want: R,
        })
        .collect();
    for (k, op) in ops.iter_mut().enumerate() {
        start(&mut l, k as u64, op);
    }
    settle(&mut l);
    std::io::Write::write_all(&mut b, b"x").unwrap();
    let mut over = vec![0u8; N as usize];
    let mut out = Vec::new();
    for _ in 0..1000 {
        l.poll(Until::Now, &mut out).unwrap();
        for e in out.drain(..) {
            let Event::Done(Key(k), Ok(_)) = e else {
                panic!("{e:?}")
            };
            over[k as usize] += 1;
        }
    }
    assert!(over.iter().all(|&n| n == 1), "each is over once");
}

#[test]
fn cancels_while_the_queue_overflows_lose_nothing() {
    const N: u64 = 10_000;
    let mut l = with(&[], &[libc::ENOMEM; 6]).unwrap();
    let (a, mut b) = pair();
    for k in 0..N {
        l.watch(a.as_raw_fd(), Key(k), R, Mode::Edge).unwrap();
    }
    settle(&mut l);
    let (c, d) = pair();
    let mut buf = [0; 8];
    let mut op = recv_op(&c, &mut buf);
    start(&mut l, N, &mut op);
    settle(&mut l);
    std::io::Write::write_all(&mut b, b"x").unwrap();
    // Behind so many others the end of one may take until later polls; its memory stays with the kernel.
    let mut pending = matches!(l.cancel(Key(N)), Cancel::Pending);
    std::io::Write::write_all(&mut &d, b"kept").unwrap();
    let mut seen = vec![false; N as usize];
    let mut got = None;
    for _ in 0..1000 {
        let mut out = Vec::new();
        l.poll(Until::Now, &mut out).unwrap();
        for e in out {
            match e {
                Event::Ready(k, _) => seen[k.0 as usize] = true,
                Event::Done(k, r) => {
                    assert!(k == Key(N) && std::mem::take(&mut pending));
                    got = r.ok();
                }
                Event::Woken => {}
            }
        }
    }
    assert!(!pending);
    assert_eq!(seen.iter().filter(|s| **s).count() as u64, N);
    if got.is_none() {
        start(&mut l, N, &mut op);
        got = done(poll_for(&mut l, 1000), N).ok();
    }
    assert_eq!((got, &buf[..4]), (Some(4), &b"kept"[..]));
}
