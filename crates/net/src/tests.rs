//! Sockets on every loop of this platform: what arrives, what times out, what an interruption leaves.

use super::*;
use gevent_hub_core::event_loop::{Loop, Readiness};
use gevent_hub_core::hub::Hub;
use gevent_hub_core::task;
use gevent_loop_epoll::EpollLoop;
use gevent_loop_uring::UringLoop;
use std::cell::Cell;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// Runs `body` on each loop that the machine has.
pub(crate) fn on_every_loop(body: impl FnOnce() + Clone + 'static) {
    let loops: [(&str, io::Result<Box<dyn Loop>>); 2] = [
        ("epoll", EpollLoop::new().map(|l| Box::new(l) as _)),
        ("uring", UringLoop::new().map(|l| Box::new(l) as _)),
    ];
    for (name, backend) in loops {
        match backend {
            Ok(backend) => task::run(backend, body.clone()).unwrap(),
            Err(e) => eprintln!("skipped on {name}: {e}"),
        }
    }
}

pub(crate) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (b, peer) = listener.accept().unwrap();
    assert_eq!(peer, a.local_addr().unwrap());
    assert_eq!(b.local_addr().unwrap(), a.peer_addr().unwrap());
    (a, b)
}

fn read_exactly(stream: impl Read, n: usize) -> Vec<u8> {
    let mut buf = Vec::new();
    stream.take(n as u64).read_to_end(&mut buf).unwrap();
    assert_eq!(buf.len(), n);
    buf
}

#[test]
fn an_echo_server_serves_many_and_sees_their_ends() {
    on_every_loop(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let ended = Rc::new(Cell::new(0));
        let count = ended.clone();
        let server = task::spawn(move || {
            listener.serve(move |stream, _| {
                let mut buf = [0; 4096];
                while let n @ 1.. = stream.recv(&mut buf).unwrap() {
                    stream.send_all(&buf[..n]).unwrap();
                }
                count.set(count.get() + 1);
            })
        });
        let clients: Vec<_> = (0..100u32)
            .map(|n| {
                task::spawn(move || {
                    let stream = TcpStream::connect(addr).unwrap();
                    stream.set_nodelay(true).unwrap();
                    for round in 0..10 {
                        let message = format!("{n} {round}").repeat(50);
                        stream.send_all(message.as_bytes()).unwrap();
                        let echo = read_exactly(&stream, message.len());
                        assert_eq!(echo, message.as_bytes());
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|c| c.join().unwrap());
        while ended.get() < 100 {
            task::sleep(MS).unwrap();
        }
        server.interrupt();
        assert!(is_interrupted(&server.join().unwrap().unwrap_err()));
    });
}

#[test]
fn a_read_times_out_and_the_stream_is_as_it_was() {
    on_every_loop(|| {
        let (a, b) = tcp_pair();
        a.set_read_timeout(Some(20 * MS));
        let begun = Instant::now();
        let late = a.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= 20 * MS);
        b.send_all(b"after all").unwrap();
        assert_eq!(read_exactly(&a, 9), b"after all");
        a.set_read_timeout(None);
        a.set_deadline(Some(20 * MS));
        for _ in 0..2 {
            let late = a.recv(&mut [0; 8]).unwrap_err();
            assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
        a.set_deadline(None);
        b.shutdown(Shutdown::Write).unwrap();
        assert_eq!(a.recv(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn an_interrupted_read_loses_no_byte() {
    on_every_loop(|| {
        let (a, b) = tcp_pair();
        let reader = task::spawn(move || {
            let mut got = Vec::new();
            let mut interruptions = 0;
            let mut buf = [0; 100];
            loop {
                match a.recv(&mut buf) {
                    Ok(0) => return (got, interruptions),
                    Ok(n) => got.extend_from_slice(&buf[..n]),
                    Err(e) => {
                        assert!(is_interrupted(&e));
                        assert_ne!(e.kind(), io::ErrorKind::Interrupted);
                        interruptions += 1;
                    }
                }
            }
        });
        task::yield_now().unwrap();
        for n in 0..200u8 {
            // The interruption comes now before the byte's event, now after it.
            if n % 3 == 0 {
                reader.interrupt();
            }
            b.send_all(&[n]).unwrap();
            if n % 3 == 1 {
                reader.interrupt();
            }
            if n % 2 == 0 {
                task::sleep(Duration::ZERO).unwrap();
            }
        }
        b.shutdown(Shutdown::Write).unwrap();
        let (got, interruptions) = reader.join().unwrap();
        assert_eq!(got, (0..200).collect::<Vec<u8>>());
        assert!(interruptions > 10, "{interruptions}");
    });
}

#[test]
fn an_interrupted_accept_leaves_the_connection_in_the_backlog() {
    on_every_loop(|| {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let addr = listener.local_addr().unwrap();
        let accepting = listener.clone();
        let interrupted = task::spawn(move || accepting.accept().map(drop));
        task::yield_now().unwrap();
        // It does not wait on the hub, so that the interruption comes before the event.
        let client = std::net::TcpStream::connect(addr).unwrap();
        interrupted.interrupt();
        assert!(is_interrupted(&interrupted.join().unwrap().unwrap_err()));
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        listener.set_timeout(Some(5 * MS));
        let none = listener.accept().map(drop).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::TimedOut);
    });
}

#[test]
fn a_large_send_goes_on_as_the_peer_reads() {
    on_every_loop(|| {
        let (a, b) = tcp_pair();
        let data: Vec<u8> = (0..8 << 20).map(|n: u32| (n ^ n >> 11) as u8).collect();
        let sent = data.clone();
        let sender = task::spawn(move || {
            a.send_all(&sent).unwrap();
            a.shutdown(Shutdown::Write).unwrap();
            // The other direction goes on.
            read_exactly(&a, 2)
        });
        task::sleep(5 * MS).unwrap();
        let mut got = Vec::new();
        (&b).read_to_end(&mut got).unwrap();
        assert!(got == data);
        b.send_all(b"ok").unwrap();
        assert_eq!(sender.join().unwrap(), b"ok");
    });
}

#[test]
fn a_send_that_times_out_tells_how_far_it_came() {
    on_every_loop(|| {
        let (a, b) = tcp_pair();
        let data = vec![7; 32 << 20];
        let deadline = Hub::with(|hub| raw::deadline_after(hub, 20 * MS));
        let sent = a.io().send_all(&data, 0, Some(deadline)).unwrap_err();
        assert_eq!(sent.error, Error::TimedOut);
        assert!(sent.bytes > 0 && sent.bytes < data.len());
        a.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        (&b).read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), sent.bytes);
    });
}

#[test]
fn connects_are_refused_and_time_out() {
    on_every_loop(|| {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = closed.local_addr().unwrap();
        drop(closed);
        let refused = TcpStream::connect(addr).map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        // A backlog of none, filled up: the kernel drops further attempts.
        let full = TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY: no memory is passed.
        assert_eq!(unsafe { libc::listen(full.as_raw_fd(), 0) }, 0);
        let addr = full.local_addr().unwrap();
        let mut held = Vec::new();
        let late = loop {
            match TcpStream::connect_timeout(addr, 50 * MS) {
                Ok(stream) => held.push(stream),
                Err(e) => break e,
            }
            assert!(held.len() < 10);
        };
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    });
}

#[test]
fn a_name_is_looked_up_and_all_its_addresses_are_tried() {
    on_every_loop(|| {
        let listener = TcpListener::bind("localhost:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect(("localhost", port)).unwrap();
        let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let both = [nobody, listener.local_addr().unwrap()];
        let second = TcpStream::connect(&both[..]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), second.peer_addr().unwrap());
    });
}

#[test]
fn an_end_that_came_with_the_data_is_seen_after_a_short_read() {
    on_every_loop(|| {
        for wait in [false, true] {
            let (a, b) = tcp_pair();
            let reader = task::spawn(move || {
                let mut buf = [0; 1000];
                let first = a.recv(&mut buf).unwrap();
                a.set_read_timeout(Some(Duration::from_secs(5)));
                (first, a.recv(&mut buf).unwrap())
            });
            if wait {
                task::yield_now().unwrap();
            }
            b.send_all(b"last words").unwrap();
            drop(b);
            assert_eq!(reader.join().unwrap(), (10, 0));
        }
    });
}

#[test]
fn whoever_waits_hears_of_a_close() {
    on_every_loop(|| {
        let (a, _b) = tcp_pair();
        let a = Rc::new(a);
        let waiting = a.clone();
        let reader = task::spawn(move || waiting.recv(&mut [0; 8]));
        task::yield_now().unwrap();
        a.io().closing();
        let closed = reader.join().unwrap().unwrap_err();
        assert_eq!(closed.raw_os_error(), Some(libc::EBADF));
        let after = a.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(after.raw_os_error(), Some(libc::EBADF));
    });
}

#[test]
fn several_buffers_go_out_and_come_in_as_one() {
    on_every_loop(|| {
        let (a, b) = tcp_pair();
        let parts = [
            IoSlice::new(b"one "),
            IoSlice::new(b""),
            IoSlice::new(b"two"),
        ];
        assert_eq!((&a).write_vectored(&parts).unwrap(), 7);
        let (mut first, mut second) = ([0; 2], [0; 20]);
        let mut bufs = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        assert_eq!((&b).read_vectored(&mut bufs).unwrap(), 7);
        assert_eq!((&first, &second[..5]), (b"on", &b"e two"[..]));
        let mut peeked = [0; 3];
        a.send_all(b"xyz").unwrap();
        assert_eq!(b.peek(&mut peeked).unwrap(), 3);
        assert_eq!(read_exactly(&b, 3), peeked);
    });
}

#[test]
fn datagrams_of_one_event_are_all_received() {
    on_every_loop(|| {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = a.local_addr().unwrap();
        let from = b.local_addr().unwrap();
        let receiver = task::spawn(move || {
            let mut buf = [0; 100];
            let mut sizes = Vec::new();
            while sizes.len() < 6 {
                let (n, sender) = a.recv_from(&mut buf).unwrap();
                assert_eq!(sender, from);
                sizes.push(n);
            }
            a.set_read_timeout(Some(5 * MS));
            let none = a.recv_from(&mut buf).unwrap_err();
            (sizes, none.kind())
        });
        for round in 0..2 {
            task::yield_now().unwrap();
            for n in 0..3 {
                assert_eq!(
                    b.send_to(&vec![0; n * 7 + round], to).unwrap(),
                    n * 7 + round
                );
            }
        }
        let (sizes, none) = receiver.join().unwrap();
        assert_eq!(sizes, [0, 7, 14, 1, 8, 15]);
        assert_eq!(none, io::ErrorKind::TimedOut);

        b.connect(from).unwrap();
        assert_eq!(b.peer_addr().unwrap(), from);
        b.send(b"to myself").unwrap();
        assert_eq!(b.recv(&mut [0; 100]).unwrap(), 9);
    });
}

#[test]
fn unix_streams_have_pairs_paths_and_abstract_names() {
    on_every_loop(|| {
        let (a, b) = UnixStream::pair().unwrap();
        a.send_all(b"pair").unwrap();
        assert_eq!(read_exactly(&b, 4), b"pair");
        assert_eq!(a.peer_addr().unwrap(), UnixAddr::Unnamed);

        let path = std::env::temp_dir().join(format!(
            "gevent-net-{}-{:p}.sock",
            std::process::id(),
            &raw const a
        ));
        let name = UnixAddr::Abstract(path.as_os_str().as_encoded_bytes().to_vec());
        for addr in [UnixAddr::Path(path.clone()), name] {
            let listener = UnixListener::bind_addr(&addr).unwrap();
            let server = task::spawn(move || {
                let (stream, peer) = listener.accept().unwrap();
                assert_eq!(peer, UnixAddr::Unnamed);
                stream.send_all(b"welcome").unwrap();
            });
            let client = UnixStream::connect_addr(&addr, None).unwrap();
            assert_eq!(client.peer_addr().unwrap(), addr);
            assert_eq!(read_exactly(&client, 7), b"welcome");
            server.join().unwrap();
        }
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn a_unix_connect_waits_for_room_in_the_backlog() {
    on_every_loop(|| {
        let name = UnixAddr::Abstract(format!("gevent-net-full-{}", std::process::id()).into());
        let listener = UnixListener::bind_addr(&name).unwrap();
        // SAFETY: no memory is passed.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let first = UnixStream::connect_addr(&name, None).unwrap();
        let late = UnixStream::connect_addr(&name, Some(10 * MS));
        assert_eq!(late.map(drop).unwrap_err().kind(), io::ErrorKind::TimedOut);
        let to = name.clone();
        let second = task::spawn(move || UnixStream::connect_addr(&to, None).map(drop));
        task::sleep(5 * MS).unwrap();
        assert!(!second.is_finished());
        drop(listener.accept().unwrap());
        second.join().unwrap().unwrap();
        drop(first);
    });
}

#[test]
fn a_descriptor_is_given_up_and_taken_over() {
    on_every_loop(|| {
        let (a, b) = tcp_pair();
        a.set_read_timeout(Some(MS));
        assert!(a.recv(&mut [0; 8]).is_err());
        let fd = a.into_fd();
        let a = TcpStream::from_fd(fd).unwrap();
        b.send_all(b"still here").unwrap();
        assert_eq!(read_exactly(&a, 10), b"still here");
    });
}

#[test]
fn threads_without_a_hub_wait_by_poll() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(10 * MS));
        let late = stream.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        stream.set_read_timeout(None);
        stream.send_all(&vec![1; 4 << 20]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_exactly(&stream, 3)
    });
    let (stream, _) = listener.accept().unwrap();
    std::thread::sleep(20 * MS);
    let mut got = Vec::new();
    (&stream).read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), 4 << 20);
    stream.send_all(b"bye").unwrap();
    assert_eq!(client.join().unwrap(), b"bye");
}

#[test]
fn a_socket_moves_to_another_runtime_of_its_thread() {
    let (a, b) = task::run(Box::new(EpollLoop::new().unwrap()), || {
        let (a, b) = tcp_pair();
        a.set_read_timeout(Some(MS));
        assert!(a.recv(&mut [0; 8]).is_err());
        (a, b)
    })
    .unwrap();
    task::run(Box::new(EpollLoop::new().unwrap()), move || {
        let reader = task::spawn(move || {
            a.set_read_timeout(None);
            read_exactly(&a, 5)
        });
        task::yield_now().unwrap();
        b.send_all(b"moved").unwrap();
        assert_eq!(reader.join().unwrap(), b"moved");
    })
    .unwrap();
}

#[test]
fn a_close_on_another_thread_reaches_the_waiters() {
    use crate::raw::{IoHandle, Kind};
    use std::sync::mpsc::channel;

    /// A handle that another thread closes while this one only waits on it; the binding's GIL does the rest.
    struct Shared(IoHandle);
    // SAFETY: the test's threads touch it one after the other.
    unsafe impl Sync for Shared {}
    // SAFETY: as above.
    unsafe impl Send for Shared {}

    let pair = std::os::unix::net::UnixStream::pair().unwrap();
    pair.0.set_nonblocking(true).unwrap();
    let handle = std::sync::Arc::new(Shared(IoHandle::new(pair.0.as_raw_fd(), Kind::Other)));
    let (waits, is_waiting) = channel();
    let (done, is_done) = channel();
    let shared = handle.clone();
    let waiter = std::thread::spawn(move || {
        let shared = shared;
        task::run(Box::new(EpollLoop::new().unwrap()), move || {
            let waiting = task::spawn(move || {
                let Shared(io) = &*shared;
                Hub::with(|hub| {
                    let hub = hub.unwrap();
                    io.would_block(hub, Readiness::READ);
                    io.wait(hub, Readiness::READ, None)
                })
            });
            task::yield_now().unwrap();
            waits.send(()).unwrap();
            let result = waiting.join().unwrap();
            done.send(()).unwrap();
            result
        })
        .unwrap()
    });
    is_waiting.recv().unwrap();
    handle.0.closing();
    drop(pair.0);
    is_done.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(waiter.join().unwrap(), Err(Error::Closed));
}
