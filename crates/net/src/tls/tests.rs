//! Handshakes, both directions at once, interruptions, ends, refusals, and certificates that change.

use super::*;
use crate::tests::{on_every_loop, tcp_pair};
use crate::{TcpListener, is_interrupted};
use gevent_hub_core::task;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// An authority that signs whatever the tests want.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "tests");
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Authority { issuer, pem }
    }

    fn pem_of(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn identity(&self, name: &str) -> Identity {
        let (certificate, key) = self.pem_of(name);
        Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    fn roots(&self) -> RootCertStore {
        roots_from_pem(self.pem.as_bytes()).unwrap()
    }
}

fn settings() -> (ServerSettings, ClientSettings) {
    let authority = Authority::new();
    let certificates = Certificates::new(authority.identity("localhost"));
    let server = ServerSettings::new(certificates);
    (server, ClientSettings::new(authority.roots()))
}

fn pair(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> (TlsStream, TlsStream) {
    let (a, b) = tcp_pair();
    let a = TlsStream::client(a, client.clone(), "localhost").unwrap();
    (a, TlsStream::server(b, server.clone()).unwrap())
}

/// Carries what each side has for the other, until nothing is left.
fn carry(a: &mut Session, b: &mut Session) -> [Vec<u8>; 2] {
    let mut got = [Vec::new(), Vec::new()];
    while a.has_output() || b.has_output() {
        let mut bytes = Vec::new();
        a.take_output(&mut bytes);
        b.receive(&bytes, &mut got[1]).unwrap();
        bytes.clear();
        b.take_output(&mut bytes);
        a.receive(&bytes, &mut got[0]).unwrap();
    }
    got
}

fn sessions() -> (Session, Session) {
    let (server, client) = settings();
    let name = "localhost".try_into().unwrap();
    let client = Session::client(client.alpn(&["h2", "http/1.1"]).build().unwrap(), name);
    let server = Session::server(server.alpn(&["http/1.1"]).build().unwrap());
    (client.unwrap(), server.unwrap())
}

#[test]
fn sessions_speak_without_io() {
    let (mut a, mut b) = sessions();
    assert!(a.is_handshaking() && b.is_handshaking());
    // Kept until the handshake is over.
    a.write_plain(b"early").unwrap();
    let [_, early] = carry(&mut a, &mut b);
    assert_eq!(early, b"early");
    assert!(!a.is_handshaking() && !b.is_handshaking());
    assert_eq!(a.alpn(), Some(&b"http/1.1"[..]));
    assert_eq!(b.alpn(), Some(&b"http/1.1"[..]));
    assert_eq!(b.server_name(), Some("localhost"));
    assert_eq!(b.version(), Some(ProtocolVersion::TLSv1_3));
    assert!(b.cipher().unwrap().starts_with("TLS13_"));
    assert_eq!(a.peer_certificates().unwrap().len(), 1);

    let large: Vec<u8> = (0..300_000u32).map(|n| (n ^ n >> 9) as u8).collect();
    b.write_plain(&large).unwrap();
    let [got, _] = carry(&mut a, &mut b);
    assert!(got == large);

    let mut buf = [0; 16];
    assert_eq!(a.read_plain(&mut buf).unwrap(), None);
    b.close();
    carry(&mut a, &mut b);
    assert!(a.peer_has_closed() && !b.peer_has_closed());
    assert_eq!(a.read_plain(&mut buf).unwrap(), Some(0));
    assert_eq!(
        b.write_plain(b"more").unwrap_err().kind(),
        std::io::ErrorKind::BrokenPipe
    );
    // The other direction goes on.
    a.write_plain(b"last").unwrap();
    let [_, last] = carry(&mut a, &mut b);
    assert_eq!(last, b"last");
    b.feed_end();
    let cut_off = b.read_plain(&mut buf).unwrap_err();
    assert_eq!(cut_off.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_session_takes_as_much_as_it_has_room_for() {
    let (mut a, mut b) = sessions();
    carry(&mut a, &mut b);
    a.write_plain(&[7; 200_000]).unwrap();
    let mut bytes = Vec::new();
    a.take_output(&mut bytes);
    let mut fed = b.feed(&bytes).unwrap();
    assert!(fed < bytes.len());
    assert_eq!(b.feed(&bytes[fed..]).unwrap(), 0);
    let mut got = 0;
    let mut buf = [0; 5000];
    while got < 200_000 {
        match b.read_plain(&mut buf).unwrap() {
            Some(n) => got += n,
            None => fed += b.feed(&bytes[fed..]).unwrap(),
        }
    }
    assert_eq!((got, fed), (200_000, bytes.len()));
}

#[test]
fn what_is_not_tls_is_an_error_with_an_alert() {
    let (_, mut b) = sessions();
    let mut plain = Vec::new();
    b.receive(b"GET / HTTP/1.1\r\n\r\n", &mut plain)
        .unwrap_err();
    assert!(plain.is_empty() && b.has_output());
    // It stays one.
    b.receive(b"x", &mut plain).unwrap_err();
    let refused = b.read_plain(&mut [0]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData);
    assert!(refused.get_ref().unwrap().is::<Error>());
}

#[test]
fn both_directions_go_at_once_and_interruptions_lose_nothing() {
    on_every_loop(|| {
        const LEN: usize = 3 << 20;
        let (server, client) = settings();
        let (a, b) = pair(&server.build().unwrap(), &client.build().unwrap());
        let data: Rc<Vec<u8>> = Rc::new((0..LEN).map(|n| (n ^ n >> 11) as u8).collect());
        let interruptions = Rc::new(Cell::new(0));
        let mut tasks = Vec::new();
        for end in [Rc::new(a), Rc::new(b)] {
            let (stream, bytes) = (end.clone(), data.clone());
            let sender = task::spawn(move || {
                for chunk in bytes.chunks(50_000) {
                    stream.send_all(chunk).unwrap();
                }
                stream.close_notify().unwrap();
            });
            let count = interruptions.clone();
            let reader = task::spawn(move || {
                let (mut got, mut buf) = (Vec::new(), vec![0; 30_000]);
                loop {
                    match end.recv(&mut buf) {
                        Ok(0) => return got,
                        Ok(n) => got.extend_from_slice(&buf[..n]),
                        Err(e) => {
                            assert!(is_interrupted(&e), "{e}");
                            count.set(count.get() + 1);
                        }
                    }
                }
            });
            tasks.push((sender, reader));
        }
        task::yield_now().unwrap();
        for n in 0.. {
            let [one, other] = &tasks[..] else {
                unreachable!()
            };
            if one.1.is_finished() && other.1.is_finished() {
                break;
            }
            if n % 2 == 0 { &one.1 } else { &other.1 }.interrupt();
            task::yield_now().unwrap();
        }
        for (sender, reader) in tasks {
            sender.join().unwrap();
            assert!(reader.join().unwrap() == *data);
        }
        assert!(interruptions.get() > 20, "{}", interruptions.get());
    });
}

#[test]
fn what_an_interrupted_write_left_goes_first() {
    on_every_loop(|| {
        let (server, client) = settings();
        let (a, b) = pair(&server.build().unwrap(), &client.build().unwrap());
        let (a, b) = (Rc::new(a), Rc::new(b));
        let other = b.clone();
        let handshake = task::spawn(move || other.handshake().unwrap());
        a.handshake().unwrap();
        handshake.join().unwrap();
        a.stream().set_write_timeout(Some(5 * MS));
        let mut begun = 0;
        let timed_out = loop {
            match a.send(&[begun as u8; 1000]) {
                Ok(n) => assert_eq!(n, 1000),
                Err(e) => break e,
            }
            begun += 1;
        };
        assert_eq!(timed_out.kind(), std::io::ErrorKind::TimedOut);
        a.stream().set_write_timeout(None);
        let writer = task::spawn(move || {
            // One was taken in by the write that failed.
            (&*a).flush().unwrap();
            a.send_all(b"end").unwrap();
            a.shutdown().unwrap();
            // Closing it with the server's tickets unread would reset the connection.
            a
        });
        let mut got = Vec::new();
        (&*b).read_to_end(&mut got).unwrap();
        writer.join().unwrap();
        let mut all: Vec<u8> = (0..=begun).flat_map(|n| [n as u8; 1000]).collect();
        all.extend_from_slice(b"end");
        assert!(got == all, "{} of {}", got.len(), all.len());
    });
}

#[test]
fn many_writers_send_whole_chunks_in_turn() {
    on_every_loop(|| {
        let (server, client) = settings();
        let (a, b) = pair(&server.build().unwrap(), &client.build().unwrap());
        let a = Rc::new(a);
        let writers: Vec<_> = (0..20u8)
            .map(|n| {
                let a = a.clone();
                task::spawn(move || match a.send_all(&[n; 60_000]) {
                    Ok(()) => true,
                    // Interrupted while it waited for its turn, or while its chunk was sent.
                    Err(e) if is_interrupted(&e) => false,
                    Err(e) => panic!("{e}"),
                })
            })
            .collect();
        task::yield_now().unwrap();
        for writer in writers.iter().step_by(7) {
            writer.interrupt();
        }
        let closer = task::spawn(move || {
            let sent = writers.into_iter().filter_map(|w| w.join().ok());
            let sent = sent.filter(|&sent| sent).count();
            a.shutdown().unwrap();
            (sent, a)
        });
        let mut got = Vec::new();
        (&b).read_to_end(&mut got).unwrap();
        let (sent, _open) = closer.join().unwrap();
        let chunks: Vec<u8> = got.chunks(60_000).map(|chunk| chunk[0]).collect();
        assert!(
            got.chunks(60_000)
                .all(|c| c.len() == 60_000 && c.iter().all(|&b| b == c[0]))
        );
        assert!(chunks.len() >= sent && sent >= 17, "{chunks:?} {sent}");
    });
}

#[test]
fn ends_of_streams() {
    on_every_loop(|| {
        let (server, client) = settings();
        let (server, client) = (server.build().unwrap(), client.build().unwrap());
        let mut buf = [0; 10];

        let (a, b) = pair(&server, &client);
        let reader = task::spawn(move || {
            let mut buf = [0; 10];
            assert_eq!(b.recv(&mut buf).unwrap(), 2);
            b.recv(&mut buf).unwrap_err().kind()
        });
        a.send_all(b"hi").unwrap();
        drop(a);
        assert_eq!(reader.join().unwrap(), std::io::ErrorKind::UnexpectedEof);

        let (a, b) = pair(&server, &client);
        let gone = task::spawn(move || drop(b));
        let refused = a.recv(&mut buf).unwrap_err();
        assert!(
            matches!(
                refused.kind(),
                std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
            ),
            "{refused}"
        );
        gone.join().unwrap();

        let (a, _silent) = pair(&server, &client);
        a.stream().set_read_timeout(Some(5 * MS));
        let late = a.recv(&mut buf).unwrap_err();
        assert_eq!(late.kind(), std::io::ErrorKind::TimedOut);
    });
}

#[test]
fn a_wrong_name_and_an_unknown_root_are_refused_on_both_sides() {
    on_every_loop(|| {
        let (server, client) = settings();
        let (server, client) = (server.build().unwrap(), client.build().unwrap());
        let stranger = ClientSettings::new(Authority::new().roots());
        for (config, name) in [
            (client, "elsewhere.example"),
            (stranger.build().unwrap(), "localhost"),
        ] {
            let (a, b) = tcp_pair();
            let a = TlsStream::client(a, config, name).unwrap();
            let b = TlsStream::server(b, server.clone()).unwrap();
            let serving = task::spawn(move || b.handshake().unwrap_err());
            let refused = a.handshake().unwrap_err();
            let why = refused.get_ref().and_then(|e| e.downcast_ref::<Error>());
            assert!(
                matches!(why, Some(Error::InvalidCertificate(_))),
                "{refused}"
            );
            // The alert has told the server.
            let told = serving.join().unwrap();
            let why = told.get_ref().and_then(|e| e.downcast_ref::<Error>());
            assert!(matches!(why, Some(Error::AlertReceived(_))), "{told}");
        }
    });
}

#[test]
fn clients_with_and_without_certificates() {
    on_every_loop(|| {
        let authority = Authority::new();
        let certificates = Certificates::new(authority.identity("localhost"));
        let required = ServerSettings::new(certificates.clone());
        let required = required.require_clients(authority.roots()).build().unwrap();
        let asked = ServerSettings::new(certificates);
        let asked = asked.ask_clients(authority.roots()).build().unwrap();
        let anonymous = ClientSettings::new(authority.roots()).build().unwrap();
        let known = ClientSettings::new(authority.roots());
        let known = known.identity(authority.identity("me")).build().unwrap();
        let false_one = ClientSettings::new(authority.roots());
        let false_one = false_one.identity(Authority::new().identity("me"));
        let false_one = false_one.build().unwrap();
        for (server, client, accepted, shown) in [
            (&required, &known, true, true),
            (&required, &anonymous, false, false),
            (&required, &false_one, false, false),
            (&asked, &known, true, true),
            (&asked, &anonymous, true, false),
            (&asked, &false_one, false, false),
        ] {
            let (a, b) = pair(server, client);
            let client = task::spawn(move || a.recv(&mut [0]).is_ok());
            let done = b.handshake();
            assert_eq!(done.is_ok(), accepted, "{done:?}");
            assert_eq!(b.session(|s| s.peer_certificates().is_some()), shown);
            if accepted {
                b.send_all(b"!").unwrap();
            }
            assert_eq!(client.join().unwrap(), accepted);
        }
    });
}

/// The certificate that a new connection for `name` is shown.
fn shown(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>, name: &str) -> Vec<u8> {
    let (a, b) = tcp_pair();
    let a = TlsStream::client(a, client.clone(), name).unwrap();
    let b = TlsStream::server(b, server.clone()).unwrap();
    let serving = task::spawn(move || b.handshake().unwrap());
    a.handshake().unwrap();
    serving.join().unwrap();
    let first = |s: &Session| s.peer_certificates().unwrap()[0].clone();
    CertificateDer::as_ref(&a.session(first)).to_vec()
}

#[test]
fn certificates_are_chosen_by_name_and_change_without_a_restart() {
    on_every_loop(|| {
        let authority = Authority::new();
        let dir = std::env::temp_dir().join(format!("gevent-net-tls-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (chain, key) = (dir.join("chain.pem"), dir.join("key.pem"));
        let install = || {
            let (certificate, private) = authority.pem_of("a.example");
            std::fs::write(&chain, certificate).unwrap();
            std::fs::write(&key, private).unwrap();
        };
        install();
        let identity = Identity::from_pem_files(&chain, &key).unwrap();
        let certificates = Certificates::new(identity);
        certificates
            .insert("*.wild.example", authority.identity("*.wild.example"))
            .unwrap();
        certificates
            .insert("B.example", authority.identity("b.example"))
            .unwrap();
        assert!(
            certificates
                .insert("no name", authority.identity("x"))
                .is_err()
        );
        let server = ServerSettings::new(certificates.clone()).build().unwrap();
        let client = ClientSettings::new(authority.roots()).build().unwrap();

        let first = shown(&server, &client, "a.example");
        let b = shown(&server, &client, "b.example");
        let wild = shown(&server, &client, "any.wild.example");
        assert!(first != b && b != wild);

        install();
        assert_eq!(shown(&server, &client, "a.example"), first);
        certificates.reload().unwrap();
        let second = shown(&server, &client, "a.example");
        assert_ne!(second, first);
        assert_eq!(shown(&server, &client, "b.example"), b);

        // A key that is not the certificate's, and a file that is not there: all stays as it was.
        let (other, _) = authority.pem_of("a.example");
        std::fs::write(&chain, other).unwrap();
        assert_eq!(
            certificates.reload().unwrap_err().kind(),
            std::io::ErrorKind::InvalidData
        );
        std::fs::remove_file(&key).unwrap();
        let missing = certificates.reload().unwrap_err();
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
        assert!(missing.to_string().contains("key.pem"), "{missing}");
        assert_eq!(shown(&server, &client, "a.example"), second);

        certificates.replace(authority.identity("a.example"));
        assert_ne!(shown(&server, &client, "a.example"), second);
        std::fs::remove_dir_all(&dir).unwrap();
    });
}

#[test]
fn sessions_are_resumed() {
    on_every_loop(|| {
        let (server, client) = settings();
        let (server, client) = (server.build().unwrap(), client.build().unwrap());
        let mut resumed = Vec::new();
        for _ in 0..2 {
            let (a, b) = pair(&server, &client);
            let serving = task::spawn(move || b.send_all(b"!").unwrap());
            // The ticket comes before the byte.
            a.recv(&mut [0]).unwrap();
            serving.join().unwrap();
            resumed.push(a.session(Session::is_resumed));
        }
        assert_eq!(resumed, [false, true]);
    });
}

#[test]
fn a_listener_serves_good_clients_beside_bad_ones() {
    on_every_loop(|| {
        let (server, client) = settings();
        let listener = TlsListener::bind("127.0.0.1:0", server.build().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = task::spawn(move || {
            listener.serve(|stream, _| {
                let mut buf = [0; 4096];
                while let Ok(n @ 1..) = stream.recv(&mut buf) {
                    stream.send_all(&buf[..n]).unwrap();
                }
                stream.shutdown().unwrap();
            })
        });
        let silent = crate::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let rude = crate::TcpStream::connect(("127.0.0.1", port)).unwrap();
        rude.send_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut alert = Vec::new();
        (&rude).read_to_end(&mut alert).unwrap();
        assert_eq!(alert.first(), Some(&21));
        let config = client.build().unwrap();
        let clients: Vec<_> = (0..50u32)
            .map(|n| {
                let config = config.clone();
                task::spawn(move || {
                    let mut stream = TlsStream::connect(("localhost", port), config).unwrap();
                    stream.write_all(&n.to_be_bytes()).unwrap();
                    stream.close_notify().unwrap();
                    let mut got = Vec::new();
                    stream.read_to_end(&mut got).unwrap();
                    assert_eq!(got, n.to_be_bytes());
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        drop(silent);
        server.interrupt();
        assert!(is_interrupted(&server.join().unwrap().unwrap_err()));
    });
}

#[test]
fn it_works_on_threads_without_a_hub() {
    let (server, client) = settings();
    let (server, client) = (server.build().unwrap(), client.build().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || {
        let (stream, _) = TlsListener::over(listener, server).accept().unwrap();
        let mut buf = [0; 10];
        let n = stream.recv(&mut buf).unwrap();
        stream.send_all(&buf[..n]).unwrap();
        stream.shutdown().unwrap();
    });
    let mut stream = TlsStream::connect(("localhost", port), client).unwrap();
    stream.write_all(b"plain").unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).unwrap();
    assert_eq!(got, "plain");
    serving.join().unwrap();
}

#[test]
fn roots_and_identities_that_are_none() {
    let kind = |e: std::io::Error| e.kind();
    assert_eq!(
        roots_from_pem(b"").map_err(kind).unwrap_err(),
        std::io::ErrorKind::InvalidData
    );
    let nowhere = roots_from_pem_file("/nonexistent/roots.pem").unwrap_err();
    assert_eq!(nowhere.kind(), std::io::ErrorKind::NotFound);
    assert!(nowhere.to_string().contains("roots.pem"));
    let authority = Authority::new();
    let (certificate, key) = authority.pem_of("localhost");
    let identity = |c: &str, k: &str| Identity::from_pem(c.as_bytes(), k.as_bytes()).map_err(kind);
    let invalid = std::io::ErrorKind::InvalidData;
    assert_eq!(identity("", &key).unwrap_err(), invalid);
    assert_eq!(identity(&certificate, "").unwrap_err(), invalid);
    let other = authority.pem_of("localhost").1;
    assert_eq!(identity(&certificate, &other).unwrap_err(), invalid);
    let shown = format!("{:?}", identity(&certificate, &key).unwrap());
    assert!(!shown.contains("PRIVATE"), "{shown}");
}
