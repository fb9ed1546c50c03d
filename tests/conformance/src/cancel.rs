//! Cancellation of every operation, at every point of its life: nothing that arrived is lost, nothing comes twice,
//! and the memory is free when it is said to be.

use crate::ops::Pinned;
use crate::readiness::closed_port;
use crate::support::*;
use gevent_hub_core::event_loop::{Cancel, Event, Key, Loop, Op, Start, Until};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Cancels, waits if the kernel still has it, and gives how it ended: `Ok` with what was done.
pub fn cancel(l: &mut dyn Loop, key: Key) -> std::io::Result<u32> {
    match l.cancel(key) {
        Cancel::Cancelled => Err(std::io::Error::from_raw_os_error(libc::ECANCELED)),
        Cancel::Finished(result) => result,
        Cancel::Pending => done(l, key),
    }
}

fn poll(l: &mut dyn Loop) -> Vec<Event> {
    let mut out = Vec::new();
    l.poll(Until::Now, &mut out).unwrap();
    out
}

/// It never went anywhere.
pub fn before_the_first_poll(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let mut op = Pinned::recv(&a, 8);
    op.park(&mut *l, key(1));
    assert!(cancel(&mut *l, key(1)).is_err());
    put(&b, b"abc");
    silent(&mut *l, key(1));
    assert_eq!(get_all(&a), b"abc");
}

/// The kernel has it.
pub fn after_a_poll(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let mut op = Pinned::recv(&a, 8);
    op.park(&mut *l, key(1));
    poll(&mut *l);
    assert!(cancel(&mut *l, key(1)).is_err());
    put(&b, b"abc");
    silent(&mut *l, key(1));
    assert_eq!(get_all(&a), b"abc");
}

/// It can be done, and has not been told: cancelled or finished, the bytes are there once.
pub fn when_the_data_is_there_already(make: MakeLoop) {
    for poll_first in [false, true] {
        let mut l = make();
        let (a, b) = pair();
        let mut op = Pinned::recv(&a, 8);
        op.park(&mut *l, key(1));
        if poll_first {
            poll(&mut *l);
        }
        put(&b, b"abc");
        let mut all = Vec::new();
        if let Ok(n) = cancel(&mut *l, key(1)) {
            all.extend_from_slice(&op.buf[..n as usize]);
        }
        silent(&mut *l, key(1));
        all.extend(get_all(&a));
        assert_eq!(all, b"abc");
    }
}

/// Its end was delivered: cancelling changes nothing, and no second end comes.
pub fn after_the_end_came_with_a_poll(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let mut op = Pinned::recv(&a, 8);
    op.park(&mut *l, key(1));
    put(&b, b"abc");
    assert_eq!(done(&mut *l, key(1)).unwrap(), 3);
    assert!(matches!(l.cancel(key(1)), Cancel::Cancelled));
    silent(&mut *l, key(1));
    assert_eq!(&op.buf[..3], b"abc");
    assert!(get_all(&a).is_empty());
}

/// A key that never was, and one that is a watcher's.
pub fn of_what_does_not_exist(make: MakeLoop) {
    let mut l = make();
    assert!(matches!(l.cancel(key(7)), Cancel::Cancelled));
    let (a, b) = pair();
    crate::readiness::watch(&mut *l, &a, 1, R, gevent_hub_core::event_loop::Mode::Level);
    assert!(matches!(l.cancel(key(1)), Cancel::Cancelled));
    put(&b, b"x");
    ready(&mut *l, key(1), R);
}

/// What a cancelled send has sent is all that the peer gets.
pub fn a_send_that_waits_for_room(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let filled = fill(&a);
    let mut op = Pinned::send(&a, 4096);
    op.park(&mut *l, key(1));
    poll(&mut *l);
    let sent = cancel(&mut *l, key(1)).unwrap_or(0) as usize;
    silent(&mut *l, key(1));
    let mut got = 0;
    loop {
        let n = get_all(&b).len();
        if n == 0 {
            break;
        }
        got += n;
    }
    assert_eq!(got, filled + sent);
}

/// The connection stays in the backlog.
pub fn an_accept(make: MakeLoop) {
    for connect_first in [false, true] {
        let mut l = make();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let op = Op::Accept {
            fd: listener.as_raw_fd(),
            addr: std::ptr::null_mut(),
            len: std::ptr::null_mut(),
        };
        let mut op = Pinned::of(op);
        op.park(&mut *l, key(1));
        poll(&mut *l);
        let mut c = None;
        if connect_first {
            c = Some(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        }
        let accepted = cancel(&mut *l, key(1));
        let _c = c.unwrap_or_else(|| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        silent(&mut *l, key(1));
        match accepted {
            // SAFETY: just given to us.
            Ok(fd) => drop(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
            Err(_) => drop(listener.accept().unwrap()),
        }
    }
}

/// The attempt is given up, or was over.
pub fn a_connect(make: MakeLoop) {
    crate::trace::unordered();
    let mut l = make();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for to in [listener.local_addr().unwrap(), closed_port()] {
        let (s, mut op) = crate::ops::connecting(to);
        match op.start(&mut *l, key(1)) {
            Start::Parked => match cancel(&mut *l, key(1)) {
                Ok(n) => assert_eq!(n, 0),
                Err(e) => assert!(matches!(
                    e.raw_os_error(),
                    Some(libc::ECANCELED | libc::ECONNREFUSED)
                )),
            },
            Start::Done(_) => {}
            Start::Offload => panic!("a socket is never offloaded"),
        }
        silent(&mut *l, key(1));
        l.fd_closing(s.as_raw_fd(), &mut Vec::new());
    }
}

/// Neither takes nor leaves a byte.
pub fn a_read_and_a_write_of_a_pipe(make: MakeLoop) {
    let mut l = make();
    let (r, w) = pipe();
    let mut read = Pinned::read(&r, 8);
    read.park(&mut *l, key(1));
    poll(&mut *l);
    assert!(cancel(&mut *l, key(1)).is_err());
    put(&w, b"abc");
    silent(&mut *l, key(1));
    assert_eq!(get_all(&r), b"abc");
    fill(&w);
    let mut write = Pinned::write(&w, 8);
    write.park(&mut *l, key(2));
    poll(&mut *l);
    assert!(cancel(&mut *l, key(2)).is_err());
    let full = get_all(&r).len();
    silent(&mut *l, key(2));
    assert!(full > 0 && get_all(&r).is_empty());
}

/// What only looks, and what receives a message.
pub fn a_poll_and_a_message(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let mut look = Pinned::of(Op::Poll {
        fd: a.as_raw_fd(),
        want: R,
    });
    let mut buf = Box::new([0u8; 8]);
    let mut iov = Box::new([libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: 8,
    }]);
    // SAFETY: plain data, for which zeros are valid.
    let mut msg: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
    msg.msg_iov = iov.as_mut_ptr();
    msg.msg_iovlen = 1;
    let mut message = Pinned::of(Op::RecvMsg {
        fd: a.as_raw_fd(),
        msg: &raw mut *msg,
        flags: 0,
    });
    look.park(&mut *l, key(1));
    message.park(&mut *l, key(2));
    poll(&mut *l);
    assert!(cancel(&mut *l, key(1)).is_err());
    assert!(cancel(&mut *l, key(2)).is_err());
    put(&b, b"abc");
    silent(&mut *l, key(1));
    silent(&mut *l, key(2));
    assert_eq!(get_all(&a), b"abc");
}

/// The queue closes up behind the one that is gone.
pub fn one_of_many_leaves_the_others(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let mut ops: Vec<_> = (0..3).map(|_| Pinned::recv(&a, 1)).collect();
    for (n, op) in ops.iter_mut().enumerate() {
        op.park(&mut *l, key(n as u32));
    }
    poll(&mut *l);
    assert!(cancel(&mut *l, key(1)).is_err());
    put(&b, b"xy");
    poll_until(&mut *l, |e| {
        let ends = e.iter().filter(|e| matches!(e, Event::Done(_, Ok(1))));
        ends.count() == 2
    });
    assert_eq!([ops[0].buf[0], ops[2].buf[0]], *b"xy");
    silent(&mut *l, key(1));
}

/// `fd_closing` before the first poll, after one, and with the data there: an end each time, and one only.
pub fn closing_at_every_point(make: MakeLoop) {
    crate::trace::unordered();
    for point in 0..3 {
        let mut l = make();
        let (a, b) = pair();
        let mut op = Pinned::recv(&a, 8);
        op.park(&mut *l, key(1));
        if point > 0 {
            poll(&mut *l);
        }
        if point > 1 {
            put(&b, b"abc");
        }
        let mut out = Vec::new();
        l.fd_closing(a.as_raw_fd(), &mut out);
        let ends = out
            .iter()
            .filter(|e| matches!(e, Event::Done(k, _) if *k == key(1)));
        assert_eq!(ends.count(), 1, "{out:?}");
        drop(a);
        silent(&mut *l, key(1));
    }
}

/// A key may name the next operation as soon as the first is over.
pub fn cancelled_keys_are_used_again(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    for n in 0..10u8 {
        let mut op = Pinned::recv(&a, 8);
        op.park(&mut *l, key(1));
        if n % 2 == 0 {
            poll(&mut *l);
        }
        assert!(cancel(&mut *l, key(1)).is_err());
    }
    let mut op = Pinned::recv(&a, 8);
    op.park(&mut *l, key(1));
    put(&b, b"abc");
    assert_eq!(done(&mut *l, key(1)).unwrap(), 3);
    assert_eq!(&op.buf[..3], b"abc");
}

/// Hundreds of operations on hundreds of descriptors, of which every other is cancelled while data comes.
pub fn a_storm_of_cancellations(make: MakeLoop) {
    crate::trace::unordered();
    let mut l = make();
    let pairs: Vec<_> = (0..300).map(|_| pair()).collect();
    let mut ops: Vec<_> = pairs.iter().map(|(a, _)| Pinned::recv(a, 4)).collect();
    for (n, op) in ops.iter_mut().enumerate() {
        op.park(&mut *l, key(n as u32));
    }
    poll(&mut *l);
    let mut ends = vec![0; 300];
    let mut taken = vec![0; 300];
    for (n, (_, b)) in pairs.iter().enumerate() {
        put(b, b"data");
        if n % 2 == 0 {
            ends[n] += 1;
            taken[n] = cancel(&mut *l, key(n as u32)).unwrap_or(0);
        }
    }
    let end = gevent_hub_core::reactor::monotonic() + PATIENCE;
    while ends.contains(&0) {
        assert!(gevent_hub_core::reactor::monotonic() < end);
        let mut out = Vec::new();
        l.poll(Until::At(end), &mut out).unwrap();
        for event in out {
            if let Event::Done(k, result) = event {
                ends[k.index() as usize] += 1;
                taken[k.index() as usize] = result.unwrap();
            }
        }
    }
    assert!(ends.iter().all(|n| *n == 1));
    for (n, (a, _)) in pairs.iter().enumerate() {
        let left = get_all(a).len() as u32;
        assert_eq!(taken[n] + left, 4, "descriptor {n}");
    }
}
