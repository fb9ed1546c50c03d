//! Readiness: what level and edge watchers hear of all kinds of descriptors.

use crate::support::*;
use gevent_hub_core::event_loop::{Event, Loop, Mode, Readiness, Until, Watch};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Watches, and expects that the kernel can.
pub fn watch(l: &mut dyn Loop, fd: &impl AsRawFd, n: u32, want: Readiness, mode: Mode) {
    assert_eq!(
        l.watch(fd.as_raw_fd(), key(n), want, mode).unwrap(),
        Watch::Armed
    );
}

/// A level watcher reports at each poll for as long as there is something.
pub fn level_repeats_until_it_is_read(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    watch(&mut *l, &a, 1, R, Mode::Level);
    silent(&mut *l, key(1));
    put(&b, b"x");
    for _ in 0..3 {
        assert_eq!(ready(&mut *l, key(1), R), R);
    }
    assert_eq!(get_all(&a), b"x");
    // One report may have been under way.
    l.poll(Until::Now, &mut Vec::new()).unwrap();
    silent(&mut *l, key(1));
    put(&b, b"y");
    ready(&mut *l, key(1), R);
}

/// An edge watcher reports once, and again when more comes.
pub fn an_edge_comes_once_for_each_change(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    watch(&mut *l, &a, 1, R, Mode::Edge);
    silent(&mut *l, key(1));
    for _ in 0..2 {
        put(&b, b"x");
        assert!(ready(&mut *l, key(1), R).has(R));
        silent(&mut *l, key(1));
    }
    assert_eq!(get_all(&a), b"xx");
    put(&b, b"y");
    ready(&mut *l, key(1), R);
}

/// What was there before the watch is reported.
pub fn an_edge_watcher_hears_of_what_was_ready_before(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    put(&b, b"x");
    watch(&mut *l, &a, 1, R.with(W), Mode::Edge);
    let events = poll_until(&mut *l, |e| {
        let r = readiness_of(e, key(1));
        r.has(R) && r.has(W)
    });
    assert!(!readiness_of(&events, key(1)).has(Readiness::HUP));
}

/// A second edge watcher of a descriptor that is registered hears of its present state.
pub fn a_second_edge_watcher_hears_too_and_the_first_goes_on(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    watch(&mut *l, &a, 1, R, Mode::Edge);
    put(&b, b"x");
    ready(&mut *l, key(1), R);
    watch(&mut *l, &a, 2, R, Mode::Edge);
    ready(&mut *l, key(2), R);
    l.unwatch(key(2));
    assert_eq!(get_all(&a), b"x");
    put(&b, b"y");
    ready(&mut *l, key(1), R);
    silent(&mut *l, key(2));
}

/// Each key hears of what it asked for, in its own mode.
pub fn keys_on_one_descriptor_have_their_own_interests(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    watch(&mut *l, &a, 1, R, Mode::Level);
    watch(&mut *l, &a, 2, W, Mode::Level);
    watch(&mut *l, &a, 3, R, Mode::Edge);
    let events = poll_until(&mut *l, |e| readiness_of(e, key(2)).has(W));
    assert!(!readiness_of(&events, key(1)).has(R) && !readiness_of(&events, key(3)).has(R));
    l.unwatch(key(2));
    put(&b, b"x");
    let events = poll_until(&mut *l, |e| {
        readiness_of(e, key(1)).has(R) && readiness_of(e, key(3)).has(R)
    });
    assert!(readiness_of(&events, key(2)).is_empty());
    l.unwatch(key(3));
    ready(&mut *l, key(1), R);
}

/// After `unwatch` nothing comes, not even what was ready before.
pub fn nothing_comes_after_unwatch(make: MakeLoop) {
    for mode in [Mode::Level, Mode::Edge] {
        let mut l = make();
        let (a, b) = pair();
        watch(&mut *l, &a, 1, R, mode);
        put(&b, b"x");
        ready(&mut *l, key(1), R);
        put(&b, b"x");
        l.unwatch(key(1));
        silent(&mut *l, key(1));
        l.unwatch(key(1));
        watch(&mut *l, &a, 2, R, mode);
        ready(&mut *l, key(2), R);
    }
}

/// The same key can be given another interest, and another descriptor.
pub fn a_second_watch_of_a_key_replaces_the_first(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let (c, d) = pair();
    watch(&mut *l, &a, 1, W, Mode::Level);
    ready(&mut *l, key(1), W);
    watch(&mut *l, &a, 1, R, Mode::Level);
    silent(&mut *l, key(1));
    watch(&mut *l, &c, 1, R, Mode::Level);
    put(&b, b"x");
    silent(&mut *l, key(1));
    put(&d, b"x");
    ready(&mut *l, key(1), R);
}

/// The peer's shutdown of sending: readable for both modes, and RDHUP where edges are kept.
pub fn a_half_close_is_reading_and_rdhup(make: MakeLoop) {
    let mut l = make();
    let (a, b) = tcp_pair();
    watch(&mut *l, &a, 1, R, Mode::Edge);
    watch(&mut *l, &a, 2, R, Mode::Level);
    b.shutdown(std::net::Shutdown::Write).unwrap();
    let events = poll_until(&mut *l, |e| {
        readiness_of(e, key(1)).has(Readiness::RDHUP) && !readiness_of(e, key(2)).is_empty()
    });
    assert!(readiness_of(&events, key(1)).has(R));
    assert!(
        !readiness_of(&events, key(1)).has(Readiness::HUP),
        "the other direction is open"
    );
    put(&a, b"still");
    let mut buf = [0; 5];
    b.set_nonblocking(false).unwrap();
    (&b).read_exact(&mut buf).unwrap();
}

/// Both directions are down when the peer of a unix stream is closed.
pub fn a_full_close_of_a_unix_peer_hangs_up(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    watch(&mut *l, &a, 1, R.with(W), Mode::Edge);
    watch(&mut *l, &a, 2, R, Mode::Level);
    drop(b);
    ready(&mut *l, key(1), Readiness::HUP);
    ready(&mut *l, key(2), Readiness::HUP);
}

/// A reset is not mistaken for data.
pub fn a_reset_is_an_error_or_a_hang_up(make: MakeLoop) {
    let mut l = make();
    let (a, b) = tcp_pair();
    watch(&mut *l, &a, 1, R.with(W), Mode::Edge);
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the option's value and its size.
    unsafe {
        libc::setsockopt(
            b.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        );
    }
    drop(b);
    ready(&mut *l, key(1), Readiness::HUP.with(Readiness::ERR));
    assert_eq!(
        (&a).read(&mut [0; 4]).unwrap_err().raw_os_error(),
        Some(libc::ECONNRESET)
    );
}

/// Urgent data raises PRI for an edge watcher.
pub fn urgent_data_is_seen_by_an_edge_watcher(make: MakeLoop) {
    // mio counts urgent data as something to read.
    crate::trace::ignore("read");
    let mut l = make();
    let (a, b) = tcp_pair();
    watch(&mut *l, &a, 1, R, Mode::Edge);
    // SAFETY: one byte.
    let sent = unsafe { libc::send(b.as_raw_fd(), c"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
    ready(&mut *l, key(1), Readiness::PRI);
}

/// Data, the last writer gone, the last reader gone.
pub fn pipes_report_data_and_both_kinds_of_end(make: MakeLoop) {
    for mode in [Mode::Level, Mode::Edge] {
        let mut l = make();
        let (r, w) = pipe();
        watch(&mut *l, &r, 1, R, mode);
        silent(&mut *l, key(1));
        put(&w, b"x");
        ready(&mut *l, key(1), R);
        assert_eq!(get_all(&r), b"x");
        drop(w);
        ready(&mut *l, key(1), Readiness::HUP);

        let (r, w) = pipe();
        watch(&mut *l, &w, 2, W, mode);
        ready(&mut *l, key(2), W);
        drop(r);
        ready(&mut *l, key(2), Readiness::ERR);
    }
}

/// A regular file is always ready, or reports so.
pub fn a_regular_file_is_ready(make: MakeLoop) {
    let mut l = make();
    let f = file();
    for (n, mode) in [(1, Mode::Level), (2, Mode::Edge)] {
        match l.watch(f.as_raw_fd(), key(n), R, mode).unwrap() {
            Watch::AlwaysReady => {}
            Watch::Armed => assert!(ready(&mut *l, key(n), R).has(R)),
        }
        l.unwatch(key(n));
    }
    silent(&mut *l, key(1));
}

/// EBADF, and no trace is left.
pub fn a_bad_descriptor_is_refused(make: MakeLoop) {
    let mut l = make();
    let (a, b) = pair();
    let fd = a.into_raw_fd();
    // SAFETY: ours, and closed once.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    for bad in [-1, 1 << 20] {
        assert!(!is_open(bad));
        let e = l.watch(bad, key(1), R, Mode::Level).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EBADF));
    }
    l.unwatch(key(1));
    drop(b);
    silent(&mut *l, key(1));
}

/// Moves a descriptor to the number that is free now, as a program that closes and opens does.
fn move_to(from: UnixStream, number: RawFd) -> UnixStream {
    // SAFETY: the number is not in use; both descriptors are ours.
    unsafe {
        assert_eq!(
            libc::fcntl(from.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number),
            number
        );
        UnixStream::from_raw_fd(number)
    }
}

/// Puts the stream at a number that no other case of the process takes meanwhile.
fn high(stream: UnixStream, number: RawFd) -> UnixStream {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` outlives the calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max.min(8192);
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    assert!(!is_open(number));
    move_to(stream, number)
}

/// After `fd_closing` and close, the number is somebody else's.
pub fn a_number_used_again_after_closing_belongs_to_the_new_key(make: MakeLoop) {
    for (number, mode) in [(3000, Mode::Level), (3001, Mode::Edge)] {
        let mut l = make();
        let (a, b) = pair();
        let a = high(a, number);
        watch(&mut *l, &a, 1, R, mode);
        put(&b, b"x");
        ready(&mut *l, key(1), R);
        let mut out = Vec::new();
        l.fd_closing(number, &mut out);
        assert!(!out.iter().any(|e| matches!(e, Event::Ready(..))));
        drop(a);
        let (c, d) = pair();
        let c = move_to(c, number);
        watch(&mut *l, &c, 2, R, mode);
        silent(&mut *l, key(2));
        put(&d, b"y");
        ready(&mut *l, key(2), R);
        silent(&mut *l, key(1));
    }
}

/// Without a word before the close, a later watch of the number still works.
pub fn a_number_used_again_without_notice_works(make: MakeLoop) {
    for (number, mode) in [(3002, Mode::Level), (3003, Mode::Edge)] {
        let mut l = make();
        let (a, b) = pair();
        let a = high(a, number);
        watch(&mut *l, &a, 1, R, mode);
        drop((a, b));
        let (c, d) = pair();
        let c = move_to(c, number);
        watch(&mut *l, &c, 2, R, mode);
        put(&d, b"y");
        ready(&mut *l, key(2), R);
        l.unwatch(key(1));
        put(&d, b"z");
        ready(&mut *l, key(2), R);
    }
}

/// A descriptor and its duplicate are two descriptors.
pub fn duplicates_are_separate(make: MakeLoop) {
    for mode in [Mode::Level, Mode::Edge] {
        let mut l = make();
        let (a, b) = pair();
        let copy = a.try_clone().unwrap();
        watch(&mut *l, &a, 1, R, mode);
        watch(&mut *l, &copy, 2, R, mode);
        put(&b, b"x");
        poll_until(&mut *l, |e| {
            readiness_of(e, key(1)).has(R) && readiness_of(e, key(2)).has(R)
        });
        l.fd_closing(a.as_raw_fd(), &mut Vec::new());
        drop(a);
        put(&b, b"y");
        ready(&mut *l, key(2), R);
        silent(&mut *l, key(1));
    }
}

/// A duplicate keeps the description alive; the closed number's key stays silent (epoll(7), Q6).
pub fn a_description_that_lives_on_is_silent_after_unwatch(make: MakeLoop) {
    for mode in [Mode::Level, Mode::Edge] {
        let mut l = make();
        let (a, b) = pair();
        let copy = a.try_clone().unwrap();
        watch(&mut *l, &a, 1, R, mode);
        drop(a);
        l.unwatch(key(1));
        put(&b, b"x");
        silent(&mut *l, key(1));
        watch(&mut *l, &copy, 2, R, mode);
        ready(&mut *l, key(2), R);
    }
}

fn connecting(to: std::net::SocketAddr) -> OwnedFd {
    let std::net::SocketAddr::V4(to) = to else {
        panic!("an IPv4 address")
    };
    // SAFETY: plain data that outlives the calls; the descriptor is ours.
    unsafe {
        let flags = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let s = OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, flags, 0));
        let addr = sockaddr(to);
        libc::connect(
            s.as_raw_fd(),
            (&raw const addr).cast(),
            size_of::<libc::sockaddr_in>() as u32,
        );
        s
    }
}

/// The C form of an address.
pub fn sockaddr(to: std::net::SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(to.ip().octets()),
        },
        sin_zero: [0; 8],
    }
}

/// A port of this machine on which nobody listens.
pub fn closed_port() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// The end of a connect is writability, with an error or without.
pub fn connects_report_success_and_refusal(make: MakeLoop) {
    for mode in [Mode::Level, Mode::Edge] {
        let mut l = make();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let s = connecting(listener.local_addr().unwrap());
        watch(&mut *l, &s, 1, W, mode);
        let r = ready(&mut *l, key(1), W);
        assert!(!r.has(Readiness::ERR.with(Readiness::HUP)));
        let s = connecting(closed_port());
        watch(&mut *l, &s, 2, W, mode);
        ready(&mut *l, key(2), Readiness::ERR.with(Readiness::HUP));
    }
}

/// A connection in the backlog is something to read.
pub fn a_listener_is_readable_when_someone_connects(make: MakeLoop) {
    for mode in [Mode::Level, Mode::Edge] {
        let mut l = make();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        watch(&mut *l, &listener, 1, R, mode);
        silent(&mut *l, key(1));
        let _c = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        ready(&mut *l, key(1), R);
    }
}

/// Every one of many is reported with its own key.
pub fn hundreds_of_descriptors_are_told_apart(make: MakeLoop) {
    let mut l = make();
    let all: Vec<_> = (0..300)
        .map(|n| {
            let (a, b) = pair();
            watch(
                &mut *l,
                &a,
                n,
                R,
                if n % 2 == 0 { Mode::Level } else { Mode::Edge },
            );
            (a, b)
        })
        .collect();
    for (_, mut b) in all.iter().map(|(a, b)| (a, b)).step_by(3) {
        b.write_all(b"x").unwrap();
    }
    let events = poll_until(&mut *l, |e| {
        (0..300).step_by(3).all(|n| readiness_of(e, key(n)).has(R))
    });
    assert!(
        (0..300)
            .filter(|n| n % 3 != 0)
            .all(|n| readiness_of(&events, key(n)).is_empty())
    );
}

/// The controlling side of a pseudo-terminal.
pub fn a_terminal_can_be_watched(make: MakeLoop) {
    for mode in [Mode::Level, Mode::Edge] {
        let mut l = make();
        // SAFETY: new descriptors, which are ours; the buffer has room for the name.
        let (master, slave) = unsafe {
            let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
            if master < 0 {
                eprintln!("skipped: no pseudo-terminals here");
                return;
            }
            let master = OwnedFd::from_raw_fd(master);
            let mut name = [0; 64];
            assert_eq!(libc::grantpt(master.as_raw_fd()), 0);
            assert_eq!(libc::unlockpt(master.as_raw_fd()), 0);
            assert_eq!(
                libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr(), name.len()),
                0
            );
            let slave = libc::open(
                name.as_ptr(),
                libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
            );
            assert!(slave >= 0);
            (master, OwnedFd::from_raw_fd(slave))
        };
        watch(&mut *l, &master, 1, R, mode);
        silent(&mut *l, key(1));
        put(&slave, b"x");
        ready(&mut *l, key(1), R);
    }
}
