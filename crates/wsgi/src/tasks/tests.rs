//! What clients see of handlers that do as they should, and of others.

use super::*;
use gevent_hub_core::event_loop::Loop;
use gevent_loop_epoll::EpollLoop;
use gevent_loop_uring::UringLoop;
use gevent_net::TcpStream;
use std::io::{Read, Write};
use std::time::Duration;

fn handle(exchange: &mut Exchange<'_>) -> Outcome {
    match exchange.path() {
        b"/split" => exchange.respond(302, &[("Location", "/a\r\nSet-Cookie: evil=1")], b""),
        b"/handled" => match exchange.respond(200, &[("X Y", "1")], b"no") {
            Err(Error::Response(why)) => exchange.respond(400, &[], why.as_bytes()),
            other => other,
        },
        b"/found" => exchange.respond(302, &[("Location", "/a")], b""),
        b"/wrong-length" => exchange.respond(200, &[("Content-Length", "1")], b"hello"),
        b"/empty" => {
            exchange.begin(204, &[])?;
            exchange.send(b"body")
        }
        b"/length" => {
            exchange.begin(200, &[("Content-Length", "5")])?;
            exchange.send(b"he")?;
            exchange.send(b"llo")
        }
        b"/too-short" => {
            exchange.begin(200, &[("Content-Length", "5")])?;
            exchange.send(b"he")
        }
        b"/too-long" => {
            exchange.begin(200, &[("Content-Length", "5")])?;
            exchange.send(b"hello!")
        }
        b"/twice" => {
            exchange.respond(200, &[], b"first")?;
            exchange.respond(200, &[], b"second")
        }
        b"/nothing" => Ok(()),
        b"/late-panic" => {
            exchange.begin(200, &[])?;
            exchange.send(b"begun")?;
            panic!("expected by the test")
        }
        b"/panic" => panic!("expected by the test"),
        _ => exchange.respond(200, &[], b"fine"),
    }
}

/// Runs `test` on each loop that this machine has, with a function that sends a request and gives all that comes
/// back until the connection closes.
fn with_server(test: impl Fn(&dyn Fn(&str) -> String) + Copy + 'static) {
    let mut loops: Vec<Box<dyn Loop>> = vec![Box::new(EpollLoop::new().unwrap())];
    if let Ok(ring) = UringLoop::new() {
        loops.push(Box::new(ring));
    }
    for backend in loops {
        task::run(backend, move || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let at = listener.local_addr().unwrap();
            let server = serve(listener, Settings::default(), handle).unwrap();
            let talk = |requests: &str| {
                let mut client = TcpStream::connect(at).unwrap();
                client.set_read_timeout(Some(Duration::from_secs(30)));
                client.write_all(requests.as_bytes()).unwrap();
                let mut out = Vec::new();
                // A reset is an end as well.
                let _ = client.read_to_end(&mut out);
                String::from_utf8(out).unwrap()
            };
            test(&talk);
            for _ in 0..6000 {
                if server.is_empty() {
                    return;
                }
                task::sleep(Duration::from_millis(5)).unwrap();
            }
            panic!("{} connections are left", server.len());
        })
        .unwrap();
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

#[test]
fn a_handler_that_fails_before_its_response_is_a_500() {
    with_server(|talk| {
        for path in ["/split", "/wrong-length", "/panic", "/nothing"] {
            let got = talk(&get(path));
            assert!(
                got.starts_with("HTTP/1.1 500 Internal Server Error\r\n"),
                "{path}: {got}"
            );
            assert!(!got.contains("evil") && !got.contains("hello"), "{got}");
            assert_eq!(got.matches("Content-Length").count(), 1, "{got}");
        }
        let got = talk(&get("/handled"));
        assert!(got.starts_with("HTTP/1.1 400 Bad Request\r\n") && got.ends_with("not a token"));
    });
}

#[test]
fn a_panic_ends_its_connection_and_no_other() {
    with_server(|talk| {
        let after = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let got = talk(&format!("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n{after}"));
        assert_eq!(got.matches("HTTP/1.1 ").count(), 1, "{got}");
        assert_eq!(got.matches("Connection: close\r\n").count(), 1, "{got}");
        let got = talk(&get("/late-panic"));
        assert!(got.contains("5\r\nbegun\r\n") && !got.contains("0\r\n\r\n"));
        assert!(talk(&get("/")).ends_with("fine"));
    });
}

#[test]
fn bodies_are_as_long_as_they_say() {
    with_server(|talk| {
        let got = talk(&get("/length"));
        assert!(got.contains("Content-Length: 5\r\n") && got.ends_with("\r\n\r\nhello"));
        assert!(!got.contains("chunked"), "{got}");
        assert!(talk(&get("/too-short")).ends_with("\r\n\r\nhe"));
        assert!(talk(&get("/too-long")).ends_with("\r\n\r\n"));
        let got = talk(&get("/twice"));
        assert!(got.ends_with("first") && got.matches("HTTP/1.1").count() == 1);
        let got = talk(&get("/empty"));
        assert!(got.starts_with("HTTP/1.1 204 No Content\r\n") && got.ends_with("\r\n\r\n"));
        assert!(!got.contains("chunked") && !got.contains("Content-Length"));
        assert!(talk(&get("/found")).starts_with("HTTP/1.1 302 Found\r\n"));
    });
}

#[test]
fn nothing_follows_the_head_of_a_response_to_head() {
    with_server(|talk| {
        for path in ["/", "/length"] {
            let got = talk(&get(path).replacen("GET", "HEAD", 1));
            assert!(got.contains("Content-Length: ") && got.ends_with("\r\n\r\n"));
        }
    });
}
