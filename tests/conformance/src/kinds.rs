//! Kinds of descriptors: directories, devices, fifos, terminals, datagrams, packets, loops; and their odd states.

use crate::readiness::{sockaddr, watch};
use crate::support::*;
use gevent_hub_core::event_loop::{Mode, Readiness, Until, Watch};
use std::ffi::CString;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

const BOTH: [Mode; 2] = [Mode::Level, Mode::Edge];

/// What never waits is always ready, or says that it is ready.
pub fn a_directory_and_a_device_answer_as_files_do(make: MakeLoop) {
    let mut l = make();
    for (n, path) in ["/", "/dev/null"].into_iter().enumerate() {
        let f = std::fs::File::open(path).unwrap();
        for (m, mode) in BOTH.into_iter().enumerate() {
            let n = (2 * n + m) as u32;
            if l.watch(f.as_raw_fd(), key(n), R, mode).unwrap() == Watch::Armed {
                ready(&mut *l, key(n), R);
            }
            l.unwatch(key(n));
            silent(&mut *l, key(n));
        }
    }
}

fn fifo() -> (CString, impl Fn(i32) -> OwnedFd) {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let path = std::env::temp_dir().join(format!("gevent-fifo-{}-{n}", std::process::id()));
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let name = path.clone();
    // SAFETY: terminated paths; the descriptors are ours.
    unsafe {
        assert_eq!(libc::mkfifo(path.as_ptr(), 0o600), 0);
        let open = move |how| {
            let fd = libc::open(name.as_ptr(), how | libc::O_NONBLOCK | libc::O_CLOEXEC);
            assert!(fd >= 0);
            OwnedFd::from_raw_fd(fd)
        };
        (path, open)
    }
}

/// Data, the last writer gone, and a writer again.
pub fn a_fifo_is_opened_closed_and_opened_again(make: MakeLoop) {
    let (path, open) = fifo();
    for mode in BOTH {
        let mut l = make();
        let r = open(libc::O_RDONLY);
        watch(&mut *l, &r, 1, R, mode);
        for _ in 0..2 {
            let w = open(libc::O_WRONLY);
            put(&w, b"x");
            ready(&mut *l, key(1), R);
            assert_eq!(get_all(&r), b"x");
            drop(w);
            ready(&mut *l, key(1), Readiness::HUP);
        }
    }
    // SAFETY: a terminated path.
    unsafe { libc::unlink(path.as_ptr()) };
}

/// A pseudo-terminal in raw mode: the master and the slave; `None` where there are none.
fn terminal() -> Option<(OwnedFd, OwnedFd)> {
    // SAFETY: room for what is filled in; the descriptors are ours.
    unsafe {
        let (mut master, mut slave) = (0, 0);
        let none = std::ptr::null_mut();
        if libc::openpty(&mut master, &mut slave, none, none.cast(), none.cast()) != 0 {
            eprintln!("skipped: no pseudo-terminals here");
            return None;
        }
        let mut how: libc::termios = std::mem::zeroed();
        libc::tcgetattr(slave, &mut how);
        libc::cfmakeraw(&mut how);
        libc::tcsetattr(slave, libc::TCSANOW, &how);
        for fd in [master, slave] {
            libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        Some((OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)))
    }
}

/// The controlling side hears of the end.
pub fn a_terminal_hangs_up_when_its_other_side_closes(make: MakeLoop) {
    for mode in BOTH {
        let Some((master, slave)) = terminal() else {
            return;
        };
        let mut l = make();
        watch(&mut *l, &master, 1, R, mode);
        silent(&mut *l, key(1));
        drop(slave);
        ready(&mut *l, key(1), Readiness::HUP.with(Readiness::ERR));
    }
}

/// Input and output go both ways.
pub fn both_sides_of_a_terminal_are_watched(make: MakeLoop) {
    for mode in BOTH {
        let Some((master, slave)) = terminal() else {
            return;
        };
        let mut l = make();
        watch(&mut *l, &master, 1, R.with(W), mode);
        watch(&mut *l, &slave, 2, R, mode);
        ready(&mut *l, key(1), W);
        put(&master, b"line\n");
        ready(&mut *l, key(2), R);
        assert_eq!(get_all(&slave), b"line\n");
        put(&slave, b"answer");
        ready(&mut *l, key(1), R);
        assert_eq!(get_all(&master), b"answer");
    }
}

fn udp() -> UdpSocket {
    let s = UdpSocket::bind("127.0.0.1:0").unwrap();
    s.set_nonblocking(true).unwrap();
    s
}

/// Each datagram is an edge; for a level watcher one that is left is enough.
pub fn datagrams_come_one_by_one(make: MakeLoop) {
    let mut l = make();
    let (a, b) = (udp(), udp());
    watch(&mut *l, &a, 1, R, Mode::Edge);
    watch(&mut *l, &a, 2, R, Mode::Level);
    for text in [b"one", b"two"] {
        b.send_to(text, a.local_addr().unwrap()).unwrap();
        ready(&mut *l, key(1), R);
    }
    let mut buf = [0; 8];
    for text in [b"one", b"two"] {
        ready(&mut *l, key(2), R);
        let (n, _) = a.recv_from(&mut buf).unwrap();
        assert_eq!(&buf[..n], text);
    }
    l.poll(Until::Now, &mut Vec::new()).unwrap();
    silent(&mut *l, key(2));
}

/// Nobody listens there: the next receive says so, and a reader hears of it.
pub fn a_refused_datagram_is_an_error(make: MakeLoop) {
    // A kqueue has no flag for an error that is not an end.
    crate::trace::ignore("broken");
    for mode in BOTH {
        let mut l = make();
        let a = udp();
        let nobody = udp().local_addr().unwrap();
        a.connect(nobody).unwrap();
        watch(&mut *l, &a, 1, R, mode);
        silent(&mut *l, key(1));
        a.send(b"x").unwrap();
        let heard = R.with(Readiness::ERR);
        ready(&mut *l, key(1), heard);
        let e = a.recv(&mut [0; 4]).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ECONNREFUSED));
    }
}

/// SOCK_SEQPACKET keeps boundaries and has an end of file.
pub fn packets_in_sequence_have_an_end(make: MakeLoop) {
    for mode in BOTH {
        let mut fds = [0; 2];
        // SAFETY: room for two descriptors, which are ours then.
        let (a, b) = unsafe {
            let ty = libc::SOCK_SEQPACKET | gevent_hub_core::os::SOCKET_FLAGS;
            if libc::socketpair(libc::AF_UNIX, ty, 0, fds.as_mut_ptr()) != 0 {
                eprintln!("skipped: no SOCK_SEQPACKET here");
                return;
            }
            (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
        };
        let mut l = make();
        watch(&mut *l, &a, 1, R, mode);
        put(&b, b"packet");
        ready(&mut *l, key(1), R);
        assert_eq!(get_all(&a), b"packet");
        drop(b);
        ready(&mut *l, key(1), Readiness::HUP.with(Readiness::RDHUP));
    }
}

/// Watched before it is connected, it reports the connection; what it said before that is its system's own
/// affair (Linux says that it hangs up).
pub fn an_unconnected_stream_waits_to_be_connected(make: MakeLoop) {
    crate::trace::unordered();
    crate::trace::ignore("broken");
    let mut l = make();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let std::net::SocketAddr::V4(to) = listener.local_addr().unwrap() else {
        panic!("an IPv4 address")
    };
    // SAFETY: plain data that outlives the calls; the descriptor is ours.
    let s = unsafe {
        let ty = libc::SOCK_STREAM | gevent_hub_core::os::SOCKET_FLAGS;
        OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, ty, 0))
    };
    watch(&mut *l, &s, 1, R.with(W), Mode::Edge);
    l.poll(Until::Now, &mut Vec::new()).unwrap();
    let addr = sockaddr(to);
    // SAFETY: the address outlives the call.
    unsafe {
        let size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        libc::connect(s.as_raw_fd(), (&raw const addr).cast(), size);
    }
    poll_until(&mut *l, |e| {
        let r = readiness_of(e, key(1));
        r.has(W) && !r.has(Readiness::HUP.with(Readiness::ERR))
    });
    let (peer, _) = listener.accept().unwrap();
    put(&peer, b"x");
    ready(&mut *l, key(1), R);
}

/// A loop that has something to do is readable.
pub fn another_loop_is_something_to_read(make: MakeLoop) {
    crate::trace::off();
    let (mut outer, mut inner) = (make(), make());
    let Some(fd) = inner.as_raw_fd() else { return };
    let (a, b) = pair();
    watch(&mut *inner, &a, 1, R, Mode::Level);
    inner.poll(Until::Now, &mut Vec::new()).unwrap();
    outer.watch(fd, key(2), R, Mode::Level).unwrap();
    outer.poll(Until::Now, &mut Vec::new()).unwrap();
    put(&b, b"x");
    ready(&mut *outer, key(2), R);
    ready(&mut *inner, key(1), R);
    inner.waker().wake();
    ready(&mut *outer, key(2), R);
    poll_until(&mut *inner, |e| {
        e.iter()
            .any(|e| matches!(e, gevent_hub_core::event_loop::Event::Woken))
    });
}

/// A level reader does not hear of urgent data that is not in the stream; ordinary data after it it does.
pub fn urgent_data_is_heard_in_every_mode_that_reads(make: MakeLoop) {
    let mut l = make();
    let (a, b) = tcp_pair();
    watch(&mut *l, &a, 1, R, Mode::Edge);
    watch(&mut *l, &a, 2, R, Mode::Level);
    // SAFETY: one byte.
    let sent = unsafe { libc::send(b.as_raw_fd(), c"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
    ready(&mut *l, key(1), Readiness::PRI);
    put(&b, b"after");
    poll_until(&mut *l, |e| {
        readiness_of(e, key(1)).has(R) && readiness_of(e, key(2)).has(R)
    });
    let mut got = Vec::new();
    for _ in 0..2 {
        got.extend(get_all(&a));
    }
    assert_eq!(got, b"after");
}

/// After the peer's half the other goes on, until it is closed too.
pub fn a_half_closed_stream_is_written_to_and_then_closed(make: MakeLoop) {
    let mut l = make();
    let (a, b) = tcp_pair();
    watch(&mut *l, &a, 1, R.with(W), Mode::Edge);
    ready(&mut *l, key(1), W);
    b.shutdown(Shutdown::Write).unwrap();
    let r = ready(&mut *l, key(1), Readiness::RDHUP);
    assert!(!r.has(Readiness::HUP));
    put(&a, b"answer");
    b.set_nonblocking(false).unwrap();
    let mut buf = [0; 6];
    { &b }.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"answer");
    a.shutdown(Shutdown::Write).unwrap();
    ready(&mut *l, key(1), Readiness::HUP);
}

/// The end of our own sending is no news of the peer's.
pub fn shutting_down_our_own_side_hangs_nothing_up(make: MakeLoop) {
    let mut l = make();
    let (a, b) = tcp_pair();
    watch(&mut *l, &a, 1, R, Mode::Level);
    watch(&mut *l, &a, 2, R, Mode::Edge);
    a.shutdown(Shutdown::Write).unwrap();
    let mut out = Vec::new();
    let end = gevent_hub_core::reactor::monotonic() + QUIET;
    while gevent_hub_core::reactor::monotonic() < end {
        l.poll(Until::At(end), &mut out).unwrap();
    }
    assert!(readiness_of(&out, key(1)).is_empty());
    assert!(!readiness_of(&out, key(2)).has(Readiness::HUP.with(Readiness::RDHUP)));
    put(&b, b"x");
    ready(&mut *l, key(1), R);
}

/// Some of what came is left: the level goes on, and the edge waits for more.
pub fn partial_reads_keep_a_level_and_not_an_edge(make: MakeLoop) {
    let mut l = make();
    let (mut a, b) = pair();
    watch(&mut *l, &a, 1, R, Mode::Level);
    watch(&mut *l, &a, 2, R, Mode::Edge);
    put(&b, b"abc");
    ready(&mut *l, key(2), R);
    a.read_exact(&mut [0; 1]).unwrap();
    let mut out = Vec::new();
    for _ in 0..3 {
        l.poll(Until::Now, &mut out).unwrap();
    }
    assert!(readiness_of(&out, key(1)).has(R));
    assert!(readiness_of(&out, key(2)).is_empty(), "{out:?}");
    put(&b, b"d");
    ready(&mut *l, key(2), R);
    assert_eq!(get_all(&a), b"bcd");
}

/// Not while it is full, and as soon as there is room.
pub fn a_full_stream_becomes_writable_for_both_modes(make: MakeLoop) {
    for mode in BOTH {
        let mut l = make();
        let (mut a, b) = pair();
        let chunk = [0u8; 4096];
        while a.write(&chunk).is_ok() {}
        watch(&mut *l, &a, 1, W, mode);
        silent(&mut *l, key(1));
        get_all(&b);
        ready(&mut *l, key(1), W);
    }
}

/// The first number is closed with notice, the copy goes on.
pub fn a_duplicate_outlives_the_closing_of_the_first(make: MakeLoop) {
    for mode in BOTH {
        let mut l = make();
        let (a, b) = pair();
        let copy = a.try_clone().unwrap();
        watch(&mut *l, &a, 1, R, mode);
        watch(&mut *l, &copy, 2, R, mode);
        l.fd_closing(a.as_raw_fd(), &mut Vec::new());
        drop(a);
        for _ in 0..3 {
            put(&b, b"x");
            ready(&mut *l, key(2), R);
            assert_eq!(get_all(&copy), b"x");
        }
        drop(b);
        ready(&mut *l, key(2), Readiness::HUP);
        silent(&mut *l, key(1));
    }
}

/// By one number an edge, by the other a level.
pub fn the_same_stream_by_two_numbers_in_two_modes(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let copy = a.try_clone().unwrap();
    watch(&mut *l, &a, 1, R, Mode::Edge);
    watch(&mut *l, &copy, 2, R, Mode::Level);
    put(&b, b"x");
    ready(&mut *l, key(1), R);
    for _ in 0..2 {
        ready(&mut *l, key(2), R);
    }
    silent(&mut *l, key(1));
    assert_eq!(get_all(&copy), b"x");
    l.poll(Until::Now, &mut Vec::new()).unwrap();
    silent(&mut *l, key(2));
}
