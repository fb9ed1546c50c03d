//! The server on real sockets and both loops, with clients that behave and others.

use super::{Server, Settings};
use crate::tasks::{self, Exchange, Outcome, Tasks};
use gevent_hub_core::event_loop::Loop;
use gevent_hub_core::task;
use gevent_loop_epoll::EpollLoop;
use gevent_loop_uring::UringLoop;
use gevent_net::{TcpListener, TcpStream};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// Echoes bodies; `/stream` streams, `/slow` sleeps, `/big` is big, `/ignore` reads nothing.
fn answer(exchange: &mut Exchange<'_>) -> Outcome {
    match exchange.path() {
        b"/stream" => {
            exchange.begin(200, &[])?;
            for n in 0..3 {
                exchange.send(format!("piece {n};").as_bytes())?;
            }
            Ok(())
        }
        b"/slow" => {
            let _ = task::sleep(Duration::from_millis(30));
            exchange.respond(200, &[], b"slow")
        }
        b"/big" => exchange.respond(200, &[], &vec![b'x'; 3 << 20]),
        b"/ignore" => exchange.respond(200, &[], b"ignored"),
        _ => {
            let body = exchange.read_all()?;
            exchange.respond(200, &[("Content-Type", "text/plain")], &body)
        }
    }
}

/// Runs `test` with a server on each loop that this machine has.
fn on_every_loop(
    settings: Settings,
    test: impl Fn(SocketAddr, Rc<Server<Tasks>>) + Copy + 'static,
) {
    let mut loops: Vec<Box<dyn Loop>> = vec![Box::new(EpollLoop::new().unwrap())];
    if let Ok(ring) = UringLoop::new() {
        loops.push(Box::new(ring));
    }
    for backend in loops {
        task::run(backend, move || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let at = listener.local_addr().unwrap();
            let server = tasks::serve(listener, settings, answer).unwrap();
            test(at, server.clone());
            server.close_all();
        })
        .unwrap();
    }
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20)));
    stream
}

/// All that the server sends until it closes.
fn talk(at: SocketAddr, data: &[u8]) -> String {
    let mut client = connect(at);
    client.write_all(data).unwrap();
    let mut out = Vec::new();
    client.read_to_end(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn read_until(client: &mut TcpStream, end: &str) -> String {
    let mut out = String::new();
    let mut byte = [0];
    while !out.ends_with(end) {
        assert_eq!(client.read(&mut byte).unwrap(), 1, "{out}");
        out.push(byte[0] as char);
    }
    out
}

fn wait_for(what: impl Fn() -> bool) {
    for _ in 0..2000 {
        if what() {
            return;
        }
        task::sleep(Duration::from_millis(5)).unwrap();
    }
    panic!("it never came");
}

#[test]
fn pipelines_bodies_and_closes() {
    on_every_loop(Settings::default(), |at, server| {
        let all = talk(
            at,
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
              POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n\
              HEAD / HTTP/1.1\r\nHost: a\r\n\r\n\
              GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n",
        );
        assert_eq!(all.matches("HTTP/1.1 200").count(), 4, "{all}");
        assert!(all.contains("\r\n\r\nabcHTTP") && all.contains("\r\n\r\ndeHTTP"));
        assert!(all.ends_with("8\r\npiece 2;\r\n0\r\n\r\n"), "{all}");
        wait_for(|| server.is_empty());
        assert_eq!(server.counts(), (1, 4));
    });
}

#[test]
fn a_held_back_answer_goes_when_the_next_one_waits() {
    on_every_loop(Settings::default(), |at, _| {
        let mut client = connect(at);
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        client
            .write_all((get("/ignore") + &get("/slow")).as_bytes())
            .unwrap();
        let first = read_until(&mut client, "ignored");
        assert!(!first.contains("slow"));
        read_until(&mut client, "\r\n\r\nslow");
    });
}

#[test]
fn an_idle_or_half_sent_connection_owns_no_fiber() {
    on_every_loop(Settings::default(), |at, server| {
        let mut clients: Vec<TcpStream> = (0..50).map(|_| connect(at)).collect();
        for (i, client) in clients.iter_mut().enumerate() {
            let sent: &[u8] = if i % 2 == 0 { b"GET / HT" } else { b"" };
            client.write_all(sent).unwrap();
        }
        wait_for(|| server.len() == 50);
        task::sleep(Duration::from_millis(20)).unwrap();
        assert_eq!(server.counts(), (50, 0));
        clients[0].write_all(b"TP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_until(&mut clients[0], "\r\n\r\n");
        assert_eq!(server.counts().1, 1);
        drop(clients);
        wait_for(|| server.is_empty());
    });
}

#[test]
fn slow_clients_run_out_of_time() {
    let settings = Settings {
        head_timeout: Some(Duration::from_millis(60)),
        idle_timeout: Some(Duration::from_millis(40)),
        body_timeout: Some(Duration::from_millis(40)),
        linger: Some(Duration::from_millis(40)),
        ..Settings::default()
    };
    on_every_loop(settings, |at, server| {
        assert!(talk(at, b"GET / HTTP/1.1\r\nHost").starts_with("HTTP/1.1 408 "));
        assert_eq!(talk(at, b""), "");
        let idle = talk(at, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(idle.starts_with("HTTP/1.1 200"), "{idle}");
        let half = talk(
            at,
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
        );
        assert_eq!(half, "", "the handler's read fails");
        let half = b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc";
        assert!(talk(at, half).ends_with("ignored"));
        wait_for(|| server.is_empty());
    });
}

#[test]
fn a_slow_reader_holds_back_its_own_answer_only() {
    on_every_loop(Settings::default(), |at, _| {
        let mut slow = connect(at);
        let big = b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        slow.write_all(big).unwrap();
        task::sleep(Duration::from_millis(20)).unwrap();
        assert!(talk(at, b"GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200"));
        let mut all = Vec::new();
        slow.read_to_end(&mut all).unwrap();
        assert!(all.len() > 3 << 20);
    });
}

#[test]
fn bodies_that_nobody_reads_are_thrown_away() {
    on_every_loop(Settings::default(), |at, _| {
        let mut data =
            b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n".to_vec();
        data.extend(std::iter::repeat_n(b'x', 300_000));
        data.extend(b"POST /ignore HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n");
        data.extend(b"abc\r\n0\r\n\r\nGET / HTTP/1.0\r\n\r\n");
        let all = talk(at, &data);
        assert_eq!(all.matches("HTTP/1.1 200").count(), 3, "{all}");
        let spoilt =
            b"POST /ignore HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
        let all = talk(at, spoilt);
        assert!(all.ends_with("ignored"), "{all}");
    });
}

#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    const BODY: usize = 8 << 20;
    on_every_loop(unhurried(), |at, server| {
        for (fields, keeps) in [
            (format!("Content-Length: {BODY}"), true),
            (
                format!("Content-Length: {BODY}\r\nConnection: close"),
                false,
            ),
            ("Transfer-Encoding: chunked".to_owned(), true),
        ] {
            let mut client = connect(at);
            let head = format!("POST /ignore HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
            client.write_all(head.as_bytes()).unwrap();
            if fields.starts_with('T') {
                client
                    .write_all(format!("{BODY:x}\r\n").as_bytes())
                    .unwrap();
            }
            client.write_all(&vec![b'x'; BODY]).unwrap();
            if fields.starts_with('T') {
                client.write_all(b"\r\n0\r\n\r\n").unwrap();
            }
            let answer = read_until(&mut client, "ignored");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            if keeps {
                client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
                read_until(&mut client, "\r\n\r\n");
            }
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        // Also to one that is refused: the first byte of its body is wrong already.
        let mut client = connect(at);
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n";
        client.write_all(head).unwrap();
        client.write_all(&vec![b'x'; BODY]).unwrap();
        assert!(read_until(&mut client, "\r\n\r\n").starts_with("HTTP/1.1 400"));
        drop(client);
        wait_for(|| server.is_empty());
        assert_eq!(server.lingering.get(), 0);
    });
}

/// Listens to clients as long as they send.
fn unhurried() -> Settings {
    Settings {
        linger: None,
        ..Settings::default()
    }
}

/// Sends until that fails.
fn flood(client: &mut TcpStream) {
    let piece = vec![b'x'; 64 * 1024];
    while client.write_all(&piece).is_ok() {}
}

#[test]
fn a_client_that_never_stops_is_closed() {
    let settings = Settings {
        linger: Some(Duration::from_millis(100)),
        ..Settings::default()
    };
    on_every_loop(settings, |at, server| {
        for (fields, more) in [
            ("Content-Length: 999999999999", ""),
            ("Content-Length: 999999999999\r\nConnection: close", ""),
            ("Transfer-Encoding: chunked", "ffffffffffff\r\n"),
            ("Content-Length: x", ""),
        ] {
            let mut client = connect(at);
            let head = format!("POST /ignore HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{more}");
            client.write_all(head.as_bytes()).unwrap();
            read_until(&mut client, "\r\n\r\n");
            flood(&mut client);
            wait_for(|| server.is_empty());
            assert_eq!(server.lingering.get(), 0);
        }
    });
}

#[test]
fn clients_that_go_on_sending_leave_others_their_turn() {
    on_every_loop(unhurried(), |at, server| {
        let floods: Vec<_> = (0..3)
            .map(|_| {
                task::spawn(move || {
                    let mut client = connect(at);
                    let head =
                        b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n";
                    client.write_all(head).unwrap();
                    flood(&mut client);
                })
            })
            .collect();
        wait_for(|| server.counts().1 == 3);
        for _ in 0..20 {
            assert!(talk(at, b"GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200"));
        }
        assert_eq!(server.len(), 3, "they still send");
        server.close_all();
        for flood in floods {
            flood.join().unwrap();
        }
        assert!(server.is_empty());
    });
}

#[test]
fn a_server_that_ends_does_not_listen_for_long() {
    on_every_loop(unhurried(), |at, server| {
        let mut clients = [connect(at), connect(at)];
        for (client, fields) in clients.iter_mut().zip(["A: b", "Connection: close"]) {
            let fields = format!("Content-Length: 99\r\n{fields}");
            let head = format!("POST /ignore HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
            client.write_all(head.as_bytes()).unwrap();
            read_until(client, "ignored");
        }
        assert_eq!(server.len(), 2);
        server.drain();
        wait_for(|| server.is_empty());
    });
}

#[test]
fn a_client_is_asked_for_its_body_when_that_is_read() {
    on_every_loop(Settings::default(), |at, _| {
        let head = |path: &str| {
            let fields = "Host: a\r\nExpect: 100-continue\r\nContent-Length: 2";
            format!("POST {path} HTTP/1.1\r\n{fields}\r\n\r\n")
        };
        let mut client = connect(at);
        client.write_all(head("/").as_bytes()).unwrap();
        assert_eq!(
            read_until(&mut client, "\r\n\r\n"),
            "HTTP/1.1 100 Continue\r\n\r\n"
        );
        client.write_all(b"ok").unwrap();
        assert!(read_until(&mut client, "\r\n\r\nok").starts_with("HTTP/1.1 200"));
        let unread = talk(at, head("/ignore").as_bytes());
        assert!(
            unread.starts_with("HTTP/1.1 200") && unread.ends_with("ignored"),
            "{unread}"
        );
        assert!(unread.contains("\r\nConnection: close\r\n"), "{unread}");
    });
}

#[test]
fn what_follows_a_connect_is_no_request() {
    on_every_loop(Settings::default(), |at, server| {
        let head = b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n";
        let more = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let all = talk(at, &[head.as_slice(), more].concat());
        assert_eq!(all.matches("HTTP/1.1 200").count(), 1, "{all}");
        wait_for(|| server.is_empty());
        assert_eq!(server.counts().1, 1);
    });
}

#[test]
fn draining_lets_answers_end() {
    on_every_loop(Settings::default(), |at, server| {
        let mut busy = connect(at);
        busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        let mut idle = connect(at);
        wait_for(|| server.counts() == (2, 1));
        server.drain();
        let mut rest = Vec::new();
        assert_eq!(idle.read_to_end(&mut rest).unwrap(), 0);
        let mut all = String::new();
        busy.read_to_string(&mut all).unwrap();
        assert!(
            all.contains("Connection: close") && all.ends_with("slow"),
            "{all}"
        );
        wait_for(|| server.is_empty());
    });
}
