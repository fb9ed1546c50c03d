//! Look-ups against a server that runs on the same hub: answers, refusals, silence, truncation, ends.

use super::*;
use crate::tests::on_every_loop;
use crate::{TcpListener, TcpStream, UdpSocket};
use gevent_hub_core::task;
use hickory_resolver::proto::op::{Message, Query as Question, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, PTR};
use hickory_resolver::proto::rr::{Name, RData, Record};
use std::io::Read;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What a server does with a question.
enum Reply {
    Message(Message),
    Bytes(Vec<u8>),
    Silence,
}

/// The zone that every server of these tests has; `tcp` says how the question came.
fn reply(query: &[u8], tcp: bool) -> Reply {
    let query = Message::from_vec(query).unwrap();
    let question: Question = query.queries[0].clone();
    let name = question.name().to_ascii().to_lowercase();
    let kind = question.query_type();
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.add_query(question.clone());
    message.metadata.recursion_available = true;
    let mut say = |owner: &str, data: RData| {
        let owner = Name::from_ascii(owner).unwrap();
        message.add_answer(Record::from_rdata(owner, 60, data));
    };
    let v4 = |n: u8| RData::A(Ipv4Addr::new(192, 0, 2, n).into());
    let v6 = |n: u16| RData::AAAA(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into());
    let to = |target: &str| RData::CNAME(CNAME(Name::from_ascii(target).unwrap()));
    let (a, aaaa) = (kind == RecordType::A, kind == RecordType::AAAA);
    match name.as_str() {
        "both.test." if a => say(&name, v4(1)),
        "both.test." if aaaa => say(&name, v6(1)),
        "v4.test." | "v4.search.test." if a => say(&name, v4(4)),
        "v4.test." | "v4.search.test." => {}
        "v6.test." if aaaa => say(&name, v6(6)),
        "v6.test." | "none.test." => {}
        "chain.test." => {
            say(&name, to("middle.test."));
            say("middle.test.", to("end.test."));
            if a {
                say("end.test.", v4(9));
            }
        }
        // The target has to be asked for.
        "half.test." => say(&name, to("both.test.")),
        "loop.test." => say(&name, to("pool.test.")),
        "pool.test." => say(&name, to("loop.test.")),
        "big.test." if a && tcp => (0..100).for_each(|n| say(&name, v4(n))),
        "big.test." if a => message.metadata.truncation = true,
        "big.test." => {}
        "7.2.0.192.in-addr.arpa." => {
            say(
                &name,
                RData::PTR(PTR(Name::from_ascii("seven.test.").unwrap())),
            );
        }
        "failing.test." => message.metadata.response_code = ResponseCode::ServFail,
        "refused.test." => message.metadata.response_code = ResponseCode::Refused,
        "silent.test." => return Reply::Silence,
        "garbage.test." => return Reply::Bytes(vec![0xff; 40]),
        "short.test." => return Reply::Bytes(query.metadata.id.to_be_bytes().to_vec()),
        _ => message.metadata.response_code = ResponseCode::NXDomain,
    }
    Reply::Message(message)
}

/// A server on loopback. Its tasks end with the runtime.
fn server() -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        // The port may be taken for TCP.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    task::spawn(move || {
        let mut buf = [0; 4096];
        while let Ok((n, from)) = udp.recv_from(&mut buf) {
            let bytes = match reply(&buf[..n], false) {
                Reply::Message(message) => message.to_vec().unwrap(),
                Reply::Bytes(bytes) => bytes,
                Reply::Silence => continue,
            };
            udp.send_to(&bytes, from).unwrap();
        }
    });
    let answer = |mut stream: &TcpStream| -> io::Result<()> {
        let mut len = [0; 2];
        loop {
            stream.read_exact(&mut len)?;
            let mut query = vec![0; u16::from_be_bytes(len).into()];
            stream.read_exact(&mut query)?;
            if let Reply::Message(message) = reply(&query, true) {
                let bytes = message.to_vec().unwrap();
                stream.send_all(&(bytes.len() as u16).to_be_bytes())?;
                stream.send_all(&bytes)?;
            }
        }
    };
    task::spawn(move || tcp.serve(move |stream, _| drop(answer(&stream))));
    address
}

fn settings(servers: &[SocketAddr]) -> Settings {
    Settings {
        servers: servers.to_vec(),
        search: vec!["search.test".to_owned()],
        timeout: Duration::from_millis(300),
        attempts: 1,
        sources: vec![Source::Dns],
        ..Settings::default()
    }
}

fn texts(found: &Found) -> Vec<String> {
    found.addresses.iter().map(IpAddr::to_string).collect()
}

const UNSORTED: Query = Query {
    family: Family::Any,
    configured: false,
    v4_mapped: false,
    all: false,
    sorted: false,
};

#[test]
fn answers_of_every_kind() {
    on_every_loop(|| {
        let resolver = Resolver::new(settings(&[server()]));
        let find = |host: &str, query: Query| resolver.lookup(host, &query).map(|f| texts(&f));
        let v4 = Query {
            family: Family::V4,
            ..UNSORTED
        };
        let v6 = Query {
            family: Family::V6,
            ..UNSORTED
        };
        assert_eq!(
            find("both.test", UNSORTED).unwrap(),
            ["192.0.2.1", "2001:db8::1"]
        );
        assert_eq!(find("both.test", v4).unwrap(), ["192.0.2.1"]);
        assert_eq!(find("BOTH.Test.", v6).unwrap(), ["2001:db8::1"]);
        assert_eq!(find("v4.test", UNSORTED).unwrap(), ["192.0.2.4"]);
        assert_eq!(find("v4.test", v6), Err(Error::NoData));
        assert_eq!(find("v6.test", v4), Err(Error::NoData));
        let mapped = Query {
            v4_mapped: true,
            ..v6
        };
        assert_eq!(find("v4.test", mapped).unwrap(), ["::ffff:192.0.2.4"]);
        assert_eq!(find("both.test", mapped).unwrap(), ["2001:db8::1"]);
        let all = Query {
            all: true,
            ..mapped
        };
        assert_eq!(
            find("both.test", all).unwrap(),
            ["::ffff:192.0.2.1", "2001:db8::1"]
        );
        assert_eq!(find("none.test", UNSORTED), Err(Error::NoData));
        assert_eq!(find("unknown.test", UNSORTED), Err(Error::NotFound));
        assert_eq!(find("a..test", UNSORTED), Err(Error::NotFound));
        assert_eq!(find(&"x".repeat(64), UNSORTED), Err(Error::NotFound));
        assert_eq!(find("192.0.2.99", UNSORTED).unwrap(), ["192.0.2.99"]);
        assert_eq!(find("::1", v4), Err(Error::NotFound));
        assert_eq!(find("localhost", v4).unwrap(), ["127.0.0.1"]);
    });
}

#[test]
fn search_domains_and_aliases() {
    on_every_loop(|| {
        let resolver = Resolver::new(settings(&[server()]));
        let found = resolver.lookup("v4", &UNSORTED).unwrap();
        assert_eq!(found.canonical, "v4.search.test");
        assert!(found.aliases.is_empty());
        assert_eq!(resolver.lookup("v4.", &UNSORTED), Err(Error::NotFound));
        let found = resolver.lookup("chain.test", &UNSORTED).unwrap();
        assert_eq!(texts(&found), ["192.0.2.9"]);
        assert_eq!(found.canonical, "end.test");
        assert_eq!(found.aliases, ["chain.test", "middle.test"]);
        let found = resolver.lookup("half.test", &UNSORTED).unwrap();
        assert_eq!(texts(&found), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(found.canonical, "both.test");
        assert!(resolver.lookup("loop.test", &UNSORTED).is_err());
    });
}

#[test]
fn names_of_addresses() {
    on_every_loop(|| {
        let resolver = Resolver::new(settings(&[server()]));
        let names = resolver.reverse("192.0.2.7".parse().unwrap()).unwrap();
        assert_eq!(names, ["seven.test"]);
        let unknown = resolver.reverse("192.0.2.8".parse().unwrap());
        assert_eq!(unknown, Err(Error::NotFound));
    });
}

#[test]
fn a_truncated_answer_comes_again_by_tcp() {
    on_every_loop(|| {
        let server = server();
        let resolver = Resolver::new(settings(&[server]));
        assert_eq!(
            resolver
                .lookup("big.test", &UNSORTED)
                .unwrap()
                .addresses
                .len(),
            100
        );
        let by_tcp = Settings {
            tcp_only: true,
            ..settings(&[server])
        };
        let found = Resolver::new(by_tcp)
            .lookup("both.test", &UNSORTED)
            .unwrap();
        assert_eq!(texts(&found), ["192.0.2.1", "2001:db8::1"]);
    });
}

#[test]
fn servers_that_cannot_answer_are_passed_over() {
    on_every_loop(|| {
        let server = server();
        let resolver = Resolver::new(settings(&[server]));
        for host in [
            "failing.test",
            "refused.test",
            "silent.test",
            "garbage.test",
            "short.test",
        ] {
            let found = resolver.lookup(host, &UNSORTED);
            assert_eq!(found, Err(Error::TryAgain), "{host}");
        }
        // Nobody listens there.
        let gone = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let quick = Settings {
            timeout: Duration::from_millis(100),
            ..settings(&[gone, server])
        };
        let resolver = Resolver::new(quick);
        let found = resolver.lookup("both.test", &UNSORTED).unwrap();
        assert_eq!(found.addresses.len(), 2);
        let total = Settings {
            timeout: Duration::from_secs(60),
            total: Some(Duration::from_millis(50)),
            ..settings(&[server])
        };
        let begun = Instant::now();
        let late = Resolver::new(total).lookup("silent.test", &UNSORTED);
        assert_eq!(late, Err(Error::TryAgain));
        assert!(begun.elapsed() < Duration::from_secs(30));
    });
}

#[test]
fn an_interruption_ends_a_look_up_and_leaves_the_resolver_sound() {
    on_every_loop(|| {
        let mut slow = settings(&[server()]);
        slow.timeout = Duration::from_secs(60);
        let resolver = Rc::new(Resolver::new(slow));
        let mine = resolver.clone();
        let asking = task::spawn(move || mine.lookup("silent.test", &UNSORTED));
        task::sleep(Duration::from_millis(5)).unwrap();
        asking.interrupt();
        assert!(matches!(
            asking.join().unwrap(),
            Err(Error::Wait(raw::Error::Interrupted(_)))
        ));
        assert!(resolver.lookup("both.test", &UNSORTED).is_ok());
    });
}

#[test]
fn many_at_once() {
    on_every_loop(|| {
        let mut patient = settings(&[server()]);
        patient.timeout = Duration::from_secs(20);
        let resolver = Rc::new(Resolver::new(patient));
        let asking: Vec<_> = (0..200)
            .map(|n| {
                let resolver = resolver.clone();
                task::spawn(move || {
                    let host = ["both.test", "chain.test", "unknown.test"][n % 3];
                    resolver.lookup(host, &UNSORTED).map(|f| f.addresses.len())
                })
            })
            .collect();
        for (n, asking) in asking.into_iter().enumerate() {
            let wanted = [Ok(2), Ok(1), Err(Error::NotFound)][n % 3];
            assert_eq!(asking.join().unwrap(), wanted);
        }
    });
}

#[test]
fn the_hosts_file_comes_first() {
    on_every_loop(|| {
        let path = std::env::temp_dir().join(format!("gevent-net-dns-{}", std::process::id()));
        std::fs::write(
            &path,
            "192.0.2.50 both.test nick\n192.0.2.51 box.test both.test\n",
        )
        .unwrap();
        let mut with_hosts = settings(&[server()]);
        with_hosts.hosts = path.clone();
        with_hosts.sources = vec![Source::Files, Source::Dns];
        let resolver = Resolver::new(with_hosts);
        let found = resolver.lookup("both.test", &UNSORTED).unwrap();
        assert_eq!(texts(&found), ["192.0.2.50", "192.0.2.51"]);
        assert_eq!(
            (&*found.canonical, &*found.aliases),
            ("both.test", &["nick".to_owned()][..])
        );
        let v6 = Query {
            family: Family::V6,
            ..UNSORTED
        };
        assert_eq!(
            texts(&resolver.lookup("both.test", &v6).unwrap()),
            ["2001:db8::1"]
        );
        assert_eq!(
            texts(&resolver.lookup("v4.test", &UNSORTED).unwrap()),
            ["192.0.2.4"]
        );
        let names = resolver.reverse("192.0.2.51".parse().unwrap()).unwrap();
        assert_eq!(names, ["box.test", "both.test"]);
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn it_works_on_threads_without_a_hub() {
    let nowhere = Settings {
        servers: vec!["127.0.0.1:9".parse().unwrap()],
        ..settings(&[])
    };
    let refused = Resolver::new(nowhere).lookup("both.test", &UNSORTED);
    assert_eq!(refused, Err(Error::TryAgain));
}
