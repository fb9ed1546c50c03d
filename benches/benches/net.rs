//! Sockets on fibers, on every loop: echoes over TCP, by few connections and by many, and new connections.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gevent_hub_core::task;
use gevent_net::{TcpListener, TcpStream};
use std::io::Read;
use std::time::{Duration, Instant};
use support::{Make, each_kind as each};

fn serve(listener: TcpListener, len: usize) {
    task::spawn(move || {
        listener.serve(move |stream, _| {
            let mut buf = vec![0; len];
            while let Ok(n @ 1..) = stream.recv(&mut buf) {
                stream.send_all(&buf[..n]).expect("the client reads");
            }
        })
    });
}

/// `rounds` echoes of `len` bytes on each of `conns` connections, both ends in one runtime.
fn echo(make: Make, conns: usize, len: usize, rounds: u64) -> Duration {
    let backend = make().expect("a loop");
    task::run(backend, move || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("an address");
        serve(listener, len);
        let streams: Vec<_> = (0..conns)
            .map(|_| TcpStream::connect(addr).expect("a connection"))
            .collect();
        let begun = Instant::now();
        let clients: Vec<_> = streams
            .into_iter()
            .map(|mut stream| {
                task::spawn(move || {
                    let mut buf = vec![7; len];
                    for _ in 0..rounds {
                        stream.send_all(&buf).expect("the server reads");
                        stream.read_exact(&mut buf).expect("an echo");
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().expect("a result");
        }
        begun.elapsed()
    })
    .expect("a runtime")
}

fn echoes(c: &mut Criterion) {
    let mut group = c.benchmark_group("TCP echo");
    for (conns, len) in [(1, 64), (100, 64), (10, 65_536)] {
        group.throughput(Throughput::Elements(conns as u64));
        each(|name, make| {
            let id = BenchmarkId::new(name, format!("{conns} of {len} bytes"));
            group.bench_function(id, |b| {
                b.iter_custom(|rounds| echo(make, conns, len, rounds))
            });
        });
    }
    group.finish();
}

fn connections(c: &mut Criterion) {
    let mut group = c.benchmark_group("TCP connection");
    each(|name, make| {
        group.bench_function(format!("{name}/connect, echo, close"), |b| {
            b.iter_custom(|rounds| {
                let backend = make().expect("a loop");
                task::run(backend, move || {
                    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
                    let addr = listener.local_addr().expect("an address");
                    serve(listener, 64);
                    let begun = Instant::now();
                    for _ in 0..rounds {
                        let mut stream = TcpStream::connect(addr).expect("a connection");
                        stream.send_all(&[1; 64]).expect("the server reads");
                        stream.read_exact(&mut [0; 64]).expect("an echo");
                    }
                    begun.elapsed()
                })
                .expect("a runtime")
            });
        });
    });
    group.finish();
}

criterion_group!(benches, echoes, connections);
criterion_main!(benches);
