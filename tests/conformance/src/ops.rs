//! Operations: done at once, waited for, cancelled, ended by a close; nothing that arrived is lost.

use crate::readiness::{closed_port, sockaddr};
use crate::support::*;
use gevent_hub_core::event_loop::{Cancel, Event, Key, Loop, Mode, Op, Start, Until};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;

/// An operation that stays where it is, with its buffer.
pub struct Pinned {
    op: Pin<Box<Op>>,
    /// What it reads into or writes from, if it has a buffer.
    pub buf: Box<[u8]>,
}

impl Pinned {
    /// Made of a buffer of `len` bytes.
    pub fn new(len: usize, make: impl FnOnce(*mut u8) -> Op) -> Pinned {
        let mut buf = vec![0u8; len].into_boxed_slice();
        let op = Box::pin(make(buf.as_mut_ptr()));
        Pinned { op, buf }
    }

    /// Without a buffer.
    pub fn of(op: Op) -> Pinned {
        Self::new(0, |_| op)
    }

    /// A receive of `len` bytes at most.
    pub fn recv(fd: &impl AsRawFd, len: usize) -> Pinned {
        let fd = fd.as_raw_fd();
        Self::new(len, |buf| Op::Recv {
            fd,
            buf,
            len,
            flags: 0,
        })
    }

    /// A send of `len` bytes.
    pub fn send(fd: &impl AsRawFd, len: usize) -> Pinned {
        let fd = fd.as_raw_fd();
        Self::new(len, |buf| Op::Send {
            fd,
            buf,
            len,
            flags: 0,
        })
    }

    /// A read of `len` bytes at most, from wherever the descriptor is.
    pub fn read(fd: &impl AsRawFd, len: usize) -> Pinned {
        let fd = fd.as_raw_fd();
        Self::new(len, |buf| Op::Read {
            fd,
            buf,
            len,
            offset: -1,
        })
    }

    /// A write of `len` bytes, to wherever the descriptor is.
    pub fn write(fd: &impl AsRawFd, len: usize) -> Pinned {
        let fd = fd.as_raw_fd();
        Self::new(len, |buf| Op::Write {
            fd,
            buf,
            len,
            offset: -1,
        })
    }

    /// Starts it.
    pub fn start(&mut self, l: &mut dyn Loop, key: Key) -> Start {
        // SAFETY: boxed, and each case keeps it until the operation is over.
        unsafe { l.start(key, self.op.as_mut()) }
    }

    /// Starts it and waits for its end, wherever that comes.
    fn run(&mut self, l: &mut dyn Loop, key: Key) -> io::Result<u32> {
        match self.start(l, key) {
            Start::Done(result) => result,
            Start::Parked => done(l, key),
            Start::Offload => panic!("a stream is never offloaded"),
        }
    }

    /// Starts it, and expects that it waits.
    pub fn park(&mut self, l: &mut dyn Loop, key: Key) {
        let start = self.start(l, key);
        assert!(matches!(start, Start::Parked), "{start:?}");
    }
}

/// Nothing there: the operation waits, and its memory is filled when data comes.
pub fn a_receive_waits_for_data(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let mut op = Pinned::recv(&a, 16);
    op.park(&mut *l, key(1));
    silent(&mut *l, key(1));
    put(&b, b"hello");
    assert_eq!(done(&mut *l, key(1)).unwrap(), 5);
    assert_eq!(&op.buf[..5], b"hello");
}

/// Data there: it is got, at once or by a completion.
pub fn a_receive_with_data_there_gets_it(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    put(&b, b"hello");
    let mut op = Pinned::recv(&a, 3);
    assert_eq!(op.run(&mut *l, key(1)).unwrap(), 3);
    assert_eq!(&op.buf[..], b"hel");
    assert_eq!(op.run(&mut *l, key(2)).unwrap(), 2);
    assert_eq!(&op.buf[..2], b"lo");
}

/// Whoever has waited longest gets the first bytes.
pub fn receives_are_served_in_their_order(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let mut ops: Vec<_> = (0..3).map(|_| Pinned::recv(&a, 1)).collect();
    for (n, op) in ops.iter_mut().enumerate() {
        op.park(&mut *l, key(n as u32));
    }
    put(&b, b"xyz");
    poll_until(&mut *l, |e| {
        e.iter()
            .filter(|e| matches!(e, Event::Done(_, Ok(1))))
            .count()
            == 3
    });
    assert_eq!(ops.iter().map(|o| o.buf[0]).collect::<Vec<_>>(), b"xyz");
}

/// Also when the kernel has been given them, and when one of them has gone, before that or after it.
pub fn receives_of_the_kernels_are_served_in_their_order(make: MakeLoop) {
    for (gone, polled) in [
        (None, true),
        (Some(0), true),
        (Some(2), true),
        (Some(0), false),
    ] {
        let mut l = make();
        let (a, b) = pair();
        let mut ops: Vec<_> = (0..4).map(|_| Pinned::recv(&a, 1)).collect();
        for (n, op) in ops.iter_mut().enumerate() {
            op.park(&mut *l, key(n as u32));
            if polled {
                silent(&mut *l, key(n as u32));
            }
        }
        if let Some(n) = gone {
            assert!(crate::cancel::cancel(&mut *l, key(n)).is_err());
        }
        put(&b, b"wxyz");
        let left = 4 - usize::from(gone.is_some());
        let one = |e: &&Event| matches!(e, Event::Done(_, Ok(1)));
        let events = poll_until(&mut *l, |e| e.iter().filter(one).count() == left);
        let ended = events.iter().filter_map(|e| match e {
            Event::Done(k, Ok(1)) => Some(k.index()),
            _ => None,
        });
        let all: Vec<_> = (0..4).filter(|n| Some(*n) != gone).collect();
        assert_eq!(ended.collect::<Vec<_>>(), all);
        let got: Vec<_> = all.iter().map(|n| ops[*n as usize].buf[0]).collect();
        assert_eq!(got, b"wxyz"[..left]);
    }
}

/// The end of the stream is zero bytes.
pub fn a_receive_ends_with_the_stream(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let mut op = Pinned::recv(&a, 4);
    op.park(&mut *l, key(1));
    drop(b);
    assert_eq!(done(&mut *l, key(1)).unwrap(), 0);
}

/// A send into a full socket waits for room; the peer gone is EPIPE and no signal.
pub fn a_big_send_goes_on_when_there_is_room(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let mut sent = 0;
    let mut n = 0;
    let mut op = Pinned::send(&a, 64 << 10);
    let parked = loop {
        n += 1;
        match op.start(&mut *l, key(n)) {
            Start::Done(result) => sent += result.unwrap(),
            Start::Parked => {
                let mut out = Vec::new();
                l.poll(
                    Until::At(gevent_hub_core::reactor::monotonic() + 5 * MS),
                    &mut out,
                )
                .unwrap();
                match out.pop() {
                    Some(Event::Done(_, result)) => sent += result.unwrap(),
                    _ => break key(n),
                }
            }
            Start::Offload => panic!("a stream is never offloaded"),
        }
        assert!(n < 1000, "a socket holds everything");
    };
    let mut got = get_all(&b).len();
    sent += done(&mut *l, parked).unwrap();
    got += get_all(&b).len();
    assert_eq!(got as u32, sent);
    drop(b);
    assert_eq!(
        op.run(&mut *l, key(5000)).unwrap_err().raw_os_error(),
        Some(libc::EPIPE)
    );
}

/// The new descriptor is close-on-exec and does not block; the address is the peer's.
pub fn an_accept_gives_a_ready_made_descriptor(make: MakeLoop) {
    let mut l = make();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    // SAFETY: plain data, for which zeros are valid.
    let mut addr: Box<libc::sockaddr_storage> = Box::new(unsafe { std::mem::zeroed() });
    let mut len = Box::new(size_of::<libc::sockaddr_storage>() as libc::socklen_t);
    let op = Op::Accept {
        fd: listener.as_raw_fd(),
        addr: &raw mut *addr,
        len: &raw mut *len,
    };
    let mut op = Pinned {
        op: Box::pin(op),
        buf: Box::new([]),
    };
    op.park(&mut *l, key(1));
    let c = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let fd = done(&mut *l, key(1)).unwrap() as i32;
    // SAFETY: just given to us.
    let s = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: no memory is passed.
    unsafe {
        assert_ne!(libc::fcntl(fd, libc::F_GETFD) & libc::FD_CLOEXEC, 0);
        assert_ne!(libc::fcntl(fd, libc::F_GETFL) & libc::O_NONBLOCK, 0);
    }
    // SAFETY: the kernel wrote an IPv4 address there.
    let addr = unsafe { &*(&raw const *addr).cast::<libc::sockaddr_in>() };
    assert_eq!(u16::from_be(addr.sin_port), c.local_addr().unwrap().port());
    assert_eq!(*len, size_of::<libc::sockaddr_in>() as u32);
    put(&c, b"x");
    assert_eq!(Pinned::recv(&s, 4).run(&mut *l, key(2)).unwrap(), 1);
}

/// A socket, and the operation that connects it.
pub fn connecting(to: SocketAddr) -> (OwnedFd, Connecting) {
    let SocketAddr::V4(to) = to else {
        panic!("an IPv4 address")
    };
    // SAFETY: plain data, for which zeros are valid; the descriptor is ours.
    let (s, mut addr): (_, Box<libc::sockaddr_storage>) = unsafe {
        let ty = libc::SOCK_STREAM | gevent_hub_core::os::SOCKET_FLAGS;
        let s = OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, ty, 0));
        (s, Box::new(std::mem::zeroed()))
    };
    // SAFETY: the storage has room for any address.
    unsafe {
        (&raw mut *addr)
            .cast::<libc::sockaddr_in>()
            .write(sockaddr(to))
    };
    let op = Op::Connect {
        fd: s.as_raw_fd(),
        addr: &raw const *addr,
        len: size_of::<libc::sockaddr_in>() as libc::socklen_t,
    };
    let op = Pinned::of(op);
    (s, Connecting { op, _addr: addr })
}

/// A connect with its address.
pub struct Connecting {
    op: Pinned,
    _addr: Box<libc::sockaddr_storage>,
}

impl Connecting {
    /// Starts it.
    pub fn start(&mut self, l: &mut dyn Loop, key: Key) -> Start {
        self.op.start(l, key)
    }
}

fn connect(l: &mut dyn Loop, to: SocketAddr, key: Key) -> (OwnedFd, io::Result<u32>) {
    let (s, mut connecting) = connecting(to);
    let result = connecting.op.run(l, key);
    (s, result)
}

/// A connect ends with 0 or with the error of the attempt.
pub fn connects_succeed_and_are_refused(make: MakeLoop) {
    let mut l = make();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (s, result) = connect(&mut *l, listener.local_addr().unwrap(), key(1));
    assert_eq!(result.unwrap(), 0);
    let (accepted, _) = listener.accept().unwrap();
    put(&accepted, b"x");
    assert_eq!(Pinned::recv(&s, 4).run(&mut *l, key(2)).unwrap(), 1);
    let (_s, result) = connect(&mut *l, closed_port(), key(3));
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
}

/// Reads and writes without a position work on pipes and wait.
pub fn a_pipe_is_read_and_written(make: MakeLoop) {
    let mut l = make();
    let (r, w) = pipe();
    let mut read = Pinned::read(&r, 8);
    read.park(&mut *l, key(1));
    let mut write = Pinned::write(&w, 2);
    write.buf.copy_from_slice(b"ab");
    let mut ends = 1;
    match write.start(&mut *l, key(2)) {
        Start::Done(n) => assert_eq!(n.unwrap(), 2),
        Start::Parked => ends = 2,
        Start::Offload => panic!("a pipe is never offloaded"),
    }
    // Both ends may come with one poll.
    let two = |e: &&Event| matches!(e, Event::Done(_, Ok(2)));
    poll_until(&mut *l, |e| e.iter().filter(two).count() == ends);
    assert_eq!(&read.buf[..2], b"ab");
}

/// A poll ends with bits of poll(2), at once if the descriptor is ready.
pub fn a_poll_reports_bits(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let fd = a.as_raw_fd();
    let poll = |want| Pinned {
        op: Box::pin(Op::Poll { fd, want }),
        buf: Box::new([]),
    };
    assert_ne!(
        poll(W).run(&mut *l, key(1)).unwrap() & libc::POLLOUT as u32,
        0
    );
    let mut read = poll(R);
    read.park(&mut *l, key(2));
    silent(&mut *l, key(2));
    put(&b, b"x");
    assert_ne!(done(&mut *l, key(2)).unwrap() & libc::POLLIN as u32, 0);
    assert_eq!(get_all(&a), b"x");
}

/// A cancelled receive takes nothing; if it was served just before, its result says so.
pub fn a_cancelled_receive_loses_nothing(make: MakeLoop) {
    for data_first in [false, true] {
        let mut l = make();
        let (a, b) = pair();
        let mut op = Pinned::recv(&a, 8);
        op.park(&mut *l, key(1));
        let mut all = Vec::new();
        if data_first {
            put(&b, b"abc");
        }
        match l.cancel(key(1)) {
            Cancel::Cancelled => {}
            Cancel::Finished(result) => {
                if let Ok(n) = result {
                    all.extend_from_slice(&op.buf[..n as usize]);
                }
            }
            Cancel::Pending => {
                if let Ok(n) = done(&mut *l, key(1)) {
                    all.extend_from_slice(&op.buf[..n as usize]);
                }
            }
        }
        if !data_first {
            put(&b, b"abc");
        }
        silent(&mut *l, key(1));
        all.extend(get_all(&a));
        assert_eq!(all, b"abc");
    }
}

/// `fd_closing` ends every operation on the descriptor.
pub fn closing_ends_what_waits(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let mut ops = [Pinned::recv(&a, 4), Pinned::recv(&a, 4)];
    for (n, op) in ops.iter_mut().enumerate() {
        op.park(&mut *l, key(n as u32));
    }
    let mut out = Vec::new();
    l.fd_closing(a.as_raw_fd(), &mut out);
    let ended = out
        .iter()
        .filter(|e| matches!(e, Event::Done(_, Err(_))))
        .count();
    assert_eq!(ended, 2, "{out:?}");
    drop(a);
    put_fails(&b);
    silent(&mut *l, key(0));
}

/// The peer's end is down: no operation keeps the description alive.
fn put_fails(fd: &UnixStream) {
    // SAFETY: one byte.
    let n = unsafe { libc::send(fd.as_raw_fd(), c"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL) };
    assert_eq!(
        (n, io::Error::last_os_error().raw_os_error()),
        (-1, Some(libc::EPIPE))
    );
}

/// EBADF, at once or by a completion.
pub fn a_bad_descriptor_is_an_error(make: MakeLoop) {
    let mut l = make();
    for (n, fd) in [(1, -1), (2, 1 << 20)] {
        let mut op = Pinned::new(4, |buf| Op::Recv {
            fd,
            buf,
            len: 4,
            flags: 0,
        });
        assert_eq!(
            op.run(&mut *l, key(n)).unwrap_err().raw_os_error(),
            Some(libc::EBADF)
        );
    }
}

/// Positioned reads and writes of a file, unless the loop would have to block for them.
pub fn files_are_done_or_offloaded(make: MakeLoop) {
    let mut l = make();
    let f = file();
    let fd = f.as_raw_fd();
    let mut run = |mut op: Pinned, n| match op.start(&mut *l, key(n)) {
        Start::Done(result) => Some((result.unwrap(), op.buf)),
        Start::Parked => Some((done(&mut *l, key(n)).unwrap(), op.buf)),
        Start::Offload => None,
    };
    if let Some((n, buf)) = run(
        Pinned::new(4, |buf| Op::Read {
            fd,
            buf,
            len: 4,
            offset: 5,
        }),
        1,
    ) {
        assert_eq!(&buf[..n as usize], b"text");
    }
    let mut write = Pinned::new(4, |buf| Op::Write {
        fd,
        buf,
        len: 4,
        offset: 0,
    });
    write.buf.copy_from_slice(b"more");
    if let Some((n, _)) = run(write, 2) {
        assert_eq!(n, 4);
        assert_eq!(get_all(&f), b"more text");
    }
    run(
        Pinned::new(0, |_| Op::Fsync {
            fd,
            data_only: true,
        }),
        3,
    );
}

/// Scattered memory and datagrams.
pub fn messages_are_sent_and_received(make: MakeLoop) {
    let mut l = make();
    let (a, b) = std::os::unix::net::UnixDatagram::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    let mut parts = (*b"one", *b"two...");
    let mut iov = Box::new([
        libc::iovec {
            iov_base: parts.0.as_mut_ptr().cast(),
            iov_len: 3,
        },
        libc::iovec {
            iov_base: parts.1.as_mut_ptr().cast(),
            iov_len: 6,
        },
    ]);
    // SAFETY: plain data, for which zeros are valid.
    let mut msg: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
    msg.msg_iov = iov.as_mut_ptr();
    msg.msg_iovlen = 2;
    let op = Op::SendMsg {
        fd: a.as_raw_fd(),
        msg: &raw const *msg,
        flags: 0,
    };
    let mut send = Pinned {
        op: Box::pin(op),
        buf: Box::new([]),
    };
    assert_eq!(send.run(&mut *l, key(1)).unwrap(), 9);

    let mut into = Box::new([0u8; 5]);
    let mut iov = Box::new([libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: 5,
    }]);
    // SAFETY: as above.
    let mut msg: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
    msg.msg_iov = iov.as_mut_ptr();
    msg.msg_iovlen = 1;
    let op = Op::RecvMsg {
        fd: b.as_raw_fd(),
        msg: &raw mut *msg,
        flags: 0,
    };
    let mut recv = Pinned {
        op: Box::pin(op),
        buf: Box::new([]),
    };
    assert_eq!(recv.run(&mut *l, key(2)).unwrap(), 5);
    assert_eq!(&into[..], b"onetw");
    assert_ne!(
        msg.msg_flags & libc::MSG_TRUNC,
        0,
        "the rest of a datagram is gone"
    );
}

/// openat, statx and fsync, unless the loop would have to block for them.
#[cfg(target_os = "linux")]
pub fn paths_are_done_or_offloaded(make: MakeLoop) {
    let mut l = make();
    let mut run = |op: Op, n: u32| {
        let mut op = Pinned::of(op);
        match op.start(&mut *l, key(n)) {
            Start::Done(result) => Some(result),
            Start::Parked => Some(done(&mut *l, key(n))),
            Start::Offload => None,
        }
    };
    let open = |path: &'static std::ffi::CStr| Op::OpenAt {
        dir: libc::AT_FDCWD,
        path: path.as_ptr(),
        flags: libc::O_RDONLY | libc::O_CLOEXEC,
        mode: 0,
    };
    if let Some(result) = run(open(c"/dev/null"), 1) {
        // SAFETY: just opened for us.
        let f = unsafe { OwnedFd::from_raw_fd(result.unwrap() as i32) };
        assert!(is_open(f.as_raw_fd()));
    }
    if let Some(result) = run(open(c"/no/such/file"), 2) {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }
    // SAFETY: plain data, for which zeros are valid.
    let mut out: Box<libc::statx> = Box::new(unsafe { std::mem::zeroed() });
    let statx = Op::Statx {
        dir: libc::AT_FDCWD,
        path: c"/dev/null".as_ptr(),
        flags: 0,
        mask: libc::STATX_BASIC_STATS,
        out: &raw mut *out,
    };
    if let Some(result) = run(statx, 3) {
        assert_eq!(result.unwrap(), 0);
        assert_eq!(u32::from(out.stx_mode) & libc::S_IFMT, libc::S_IFCHR);
    }
    let f = file();
    for (n, data_only) in [(4, false), (5, true)] {
        let fd = f.as_raw_fd();
        if let Some(result) = run(Op::Fsync { fd, data_only }, n) {
            assert_eq!(result.unwrap(), 0);
        }
    }
}

/// fsync, unless the loop would have to block for it.
#[cfg(not(target_os = "linux"))]
pub fn paths_are_done_or_offloaded(make: MakeLoop) {
    let mut l = make();
    let f = file();
    let fd = f.as_raw_fd();
    let mut op = Pinned::of(Op::Fsync {
        fd,
        data_only: false,
    });
    assert!(matches!(op.start(&mut *l, key(1)), Start::Offload));
}

/// MSG_OOB waits for the urgent byte and takes it alone.
pub fn urgent_bytes_are_received_as_such(make: MakeLoop) {
    let mut l = make();
    let (a, b) = tcp_pair();
    put(&b, b"ordinary");
    // SAFETY: one byte.
    let sent = unsafe { libc::send(b.as_raw_fd(), c"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
    let look = Op::Poll {
        fd: a.as_raw_fd(),
        want: gevent_hub_core::event_loop::Readiness::PRI,
    };
    let bits = Pinned::of(look).run(&mut *l, key(1)).unwrap();
    assert_ne!(bits & libc::POLLPRI as u32, 0);
    let fd = a.as_raw_fd();
    let mut op = Pinned::new(1, |buf| Op::Recv {
        fd,
        buf,
        len: 1,
        flags: libc::MSG_OOB,
    });
    assert_eq!(op.run(&mut *l, key(2)).unwrap(), 1);
    assert_eq!(&op.buf[..], b"!");
    assert_eq!(get_all(&a), b"ordinary");
}

/// Watchers are told, and the operation takes the bytes.
pub fn operations_and_watchers_share_a_descriptor(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    crate::readiness::watch(&mut *l, &a, 1, R, Mode::Edge);
    let mut op = Pinned::recv(&a, 8);
    op.park(&mut *l, key(2));
    put(&b, b"abc");
    let events = poll_until(&mut *l, |e| {
        readiness_of(e, key(1)).has(R)
            && e.iter()
                .any(|e| matches!(e, Event::Done(k, Ok(3)) if *k == key(2)))
    });
    assert!(events.len() >= 2);
    assert_eq!(&op.buf[..3], b"abc");
    l.unwatch(key(1));
    let mut again = Pinned::recv(&a, 8);
    again.park(&mut *l, key(3));
    put(&b, b"d");
    assert_eq!(done(&mut *l, key(3)).unwrap(), 1);
}

/// A receive waits for data and a send for room, on one stream.
pub fn reads_and_writes_of_one_stream_wait_at_once(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    fill(&a);
    let mut send = Pinned::send(&a, 4);
    let mut recv = Pinned::recv(&a, 8);
    send.park(&mut *l, key(1));
    recv.park(&mut *l, key(2));
    silent(&mut *l, key(1));
    put(&b, b"abc");
    assert_eq!(done(&mut *l, key(2)).unwrap(), 3);
    silent(&mut *l, key(1));
    get_all(&b);
    assert_eq!(done(&mut *l, key(1)).unwrap(), 4);
}
