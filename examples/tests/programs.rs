//! Starts every example and talks to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A server that is stopped at the end, whatever happens.
struct Server(Child, u16);

impl Server {
    /// Starts `program` on a port of its choosing, which it prints.
    fn start(program: &str, args: &[&str]) -> Server {
        let mut child = Command::new(program)
            .args(args)
            .arg("0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let after = line.rsplit(':').next().unwrap();
        let port = after.split_whitespace().next().unwrap_or_default().parse();
        Server(
            child,
            port.unwrap_or_else(|_| panic!("no port in {line:?}")),
        )
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.1)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    /// Ends it as Ctrl-C does.
    fn interrupt(mut self) {
        // SAFETY: our own child, which has not been waited for.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGINT) };
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn echo_gives_back_and_ends_at_ctrl_c() {
    let server = Server::start(env!("CARGO_BIN_EXE_echo"), &[]);
    let mut stream = server.connect();
    stream.write_all(b"there and back").unwrap();
    let mut got = [0; 14];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"there and back");
    server.interrupt();
}

#[test]
fn chat_passes_lines_on() {
    let server = Server::start(env!("CARGO_BIN_EXE_chat"), &[]);
    let mut first = BufReader::new(server.connect());
    first.get_mut().write_all(b"hello, nobody\n").unwrap();
    let mut second = server.connect();
    let mut line = String::new();
    first.read_line(&mut line).unwrap();
    assert_eq!(line, "* 1 has come\n");
    second.write_all(b"hello\n").unwrap();
    line.clear();
    first.read_line(&mut line).unwrap();
    assert_eq!(line, "1: hello\n");
    server.interrupt();
}

#[test]
fn tls_echo_speaks_tls() {
    let folder = std::env::temp_dir().join(format!("gevent-examples-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let paths = [certificate.to_str().unwrap(), key.to_str().unwrap()];
    let server = Server::start(env!("CARGO_BIN_EXE_tls_echo"), &paths);
    let roots = gevent_net::tls::roots_from_pem_file(&certificate).unwrap();
    let config = gevent_net::tls::ClientSettings::new(roots).build().unwrap();
    let port = server.1;
    let backend = gevent_examples::loop_from_env().unwrap();
    let got = gevent_hub_core::task::run(backend, move || {
        let address = ("localhost", port);
        let stream = gevent_net::tls::TlsStream::connect(address, config).unwrap();
        stream.send_all(b"in secret").unwrap();
        let mut got = [0; 9];
        let mut reader = &stream;
        reader.read_exact(&mut got).unwrap();
        got
    });
    assert_eq!(&got.unwrap(), b"in secret");
    server.interrupt();
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Serves a small site from a thread, which goes with the process.
fn site() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut request, mut line) = (String::new(), String::new());
            stream.read_line(&mut request).unwrap();
            while stream.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            let (status, more, body) = match request.split(' ').nth(1).unwrap() {
                "/" => (
                    "200 OK",
                    "",
                    "<a href=\"one\"> <a href=\"/two#x\"> <a href=\"ftp://x/\">",
                ),
                "/one" => (
                    "200 OK",
                    "",
                    "<a href=\"/\"> <a href=\"gone\"> <a href=\"moved\">",
                ),
                "/two" => ("200 OK", "", "<a href=\"http://elsewhere.invalid/\">"),
                "/moved" => ("302 Found", "Location: /three\r\n", ""),
                "/three" => ("200 OK", "", "the end"),
                _ => ("404 Not Found", "", "no"),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\n\r\n");
            let _ = stream.get_mut().write_all((head + body).as_bytes());
        }
    });
    port
}

fn run(program: &str, args: &[&str]) -> (Output, String, String) {
    let done = Command::new(program).args(args).output().unwrap();
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    let err = String::from_utf8_lossy(&done.stderr).into_owned();
    (done, out, err)
}

#[test]
fn fetch_fetches_all() {
    let port = site();
    let good = format!("http://127.0.0.1:{port}/three");
    let bad = "http://127.0.0.1:1/";
    let (done, out, _) = run(env!("CARGO_BIN_EXE_fetch"), &[&good, &good]);
    assert!(done.status.success());
    assert_eq!(out.matches("200 7 bytes").count(), 2, "{out}");
    let (done, out, err) = run(env!("CARGO_BIN_EXE_fetch"), &[&good, bad]);
    assert_eq!(done.status.code(), Some(1));
    assert!(
        out.contains("200 7 bytes") && err.contains(bad),
        "{out}{err}"
    );
}

#[test]
fn crawler_visits_each_page_once_and_finds_what_is_broken() {
    let port = site();
    let start = format!("http://127.0.0.1:{port}/");
    let (done, out, err) = run(env!("CARGO_BIN_EXE_crawler"), &[&start, "3"]);
    assert_eq!(done.status.code(), Some(1));
    for page in ["/", "/one", "/two", "/three"] {
        let line = format!("http://127.0.0.1:{port}{page}");
        assert_eq!(
            out.lines().filter(|l| **l == line).count(),
            1,
            "{page}: {out}"
        );
    }
    assert!(!out.contains("elsewhere"), "it stays on the host");
    assert_eq!(
        err.trim_end(),
        format!("broken: http://127.0.0.1:{port}/gone: 404")
    );
}
