//! Files: what a loop makes of many reads at once, of what is in memory, against read(2) one by one.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gevent_hub_core::event_loop::{Event, Key, Loop, Op, Start, Until};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::pin::Pin;

const SIZE: usize = 4096;

fn file() -> File {
    let name = format!("gevent-bench-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut options = File::options();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .expect("a file");
    // It lives as long as it is open.
    std::fs::remove_file(path).expect("ours");
    file.write_all(&vec![1; SIZE * 64]).expect("room");
    file
}

/// Reads `n` parts of the file by operations; what the loop leaves to a thread pool is read here.
fn read(l: &mut dyn Loop, file: &File, ops: &mut [Op], parts: &mut [Vec<u8>]) {
    let mut waiting = 0;
    for (k, op) in ops.iter_mut().enumerate() {
        // SAFETY: the operations lie in a slice that outlives them, as does their memory.
        match unsafe { l.start(Key(k as u64), Pin::new_unchecked(op)) } {
            Start::Done(result) => assert_eq!(result.expect("a read") as usize, SIZE),
            Start::Parked => waiting += 1,
            Start::Offload => {
                let at = (k % 64 * SIZE) as u64;
                file.read_exact_at(&mut parts[k], at).expect("a read");
            }
        }
    }
    let mut out = Vec::new();
    while waiting > 0 {
        l.poll(Until::Forever, &mut out).expect("a poll");
        for event in out.drain(..) {
            if let Event::Done(_, result) = event {
                assert_eq!(result.expect("a read") as usize, SIZE);
                waiting -= 1;
            }
        }
    }
}

fn reads(c: &mut Criterion) {
    let file = file();
    let mut group = c.benchmark_group("reads of 4 KiB");
    for n in [1, 100] {
        group.throughput(Throughput::Elements(n as u64));
        let mut parts = vec![vec![0; SIZE]; n];
        support::each(|name, mut l| {
            let mut ops: Vec<Op> = parts
                .iter_mut()
                .enumerate()
                .map(|(k, part)| Op::Read {
                    fd: file.as_raw_fd(),
                    buf: part.as_mut_ptr(),
                    len: SIZE,
                    offset: (k % 64 * SIZE) as i64,
                })
                .collect();
            group.bench_function(BenchmarkId::new(name, n), |b| {
                b.iter(|| read(&mut *l, &file, &mut ops, &mut parts));
            });
        });
        group.bench_function(BenchmarkId::new("read(2)", n), |b| {
            b.iter(|| {
                for (k, part) in parts.iter_mut().enumerate() {
                    let at = (k % 64 * SIZE) as u64;
                    file.read_exact_at(part, at).expect("a read");
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, reads);
criterion_main!(benches);
