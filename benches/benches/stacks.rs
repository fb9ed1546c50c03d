//! What stacks cost from an empty pool: nanoseconds of the thread's own processor time to map one, to touch
//! its page, to give it back and to take it again; bytes of memory and of page tables each; maps in all.
//!
//! Not a criterion benchmark, because a pool is empty only once. `--test` takes the smallest size alone.

use gevent_hub_core::stack::{self, PooledStack};
use std::time::{Duration, Instant};

/// The thread's processor time: the machine's other work does not count.
fn cpu() -> Duration {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid out pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// A field of /proc/self/status, in bytes.
fn memory(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with(field));
    let number = line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok());
    number.unwrap_or(0) * 1024
}

fn touch(stack: &PooledStack) {
    // SAFETY: the top of a C stack that nothing runs on, and the annex next to it.
    unsafe {
        (stack.base_addr() as *mut u64).sub(1).write_volatile(1);
        stack.annex().0.cast::<u64>().write_volatile(1);
    }
}

fn measure(n: usize) {
    let per_stack = |since: Duration| (cpu() - since).as_nanos() as f64 / n as f64;
    let mut all = Vec::with_capacity(n);
    let (rss, tables) = (memory("VmRSS"), memory("VmPTE"));
    let begun = cpu();
    all.extend((0..n).map(|_| stack::acquire().expect("a stack")));
    let cold = per_stack(begun);
    let begun = cpu();
    all.iter().for_each(touch);
    let touched = per_stack(begun);
    let each = |field, before| (memory(field).saturating_sub(before)) / n;
    let (rss, tables) = (each("VmRSS", rss), each("VmPTE", tables));
    let maps = std::fs::read_to_string("/proc/self/maps").map_or(0, |m| m.lines().count());
    let begun = cpu();
    all.clear();
    let released = per_stack(begun);
    let begun = cpu();
    all.extend((0..n).map(|_| stack::acquire().expect("a stack")));
    let warm = per_stack(begun);
    println!(
        "{n:>7} stacks: {cold:6.0} ns to map, {touched:6.0} to touch, {released:4.0} to give back, \
         {warm:3.0} to take again; {rss} + {tables} bytes each, {maps} maps"
    );
    drop(all);
    let full = memory("VmRSS");
    let (begun, wall) = (cpu(), Instant::now());
    while stack::trim_idle() && wall.elapsed() < Duration::from_secs(4) {
        std::thread::sleep(Duration::from_micros(100));
    }
    println!(
        "{:>7} trimmed: {} KiB given back in {:.1} ms of processor time",
        "",
        full.saturating_sub(memory("VmRSS")) >> 10,
        (cpu() - begun).as_secs_f64() * 1e3
    );
}

fn main() {
    let brief = std::env::args().any(|a| a == "--test");
    let sizes = [1_000, 10_000, 100_000, 200_000];
    for &n in &sizes[..if brief { 1 } else { sizes.len() }] {
        // A thread of its own has a pool of its own.
        std::thread::spawn(move || measure(n))
            .join()
            .expect("the thread ends well");
    }
}
