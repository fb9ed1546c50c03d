//! Tests of the pool, of slabs and of guards, each on a thread (hence a pool) of its own.

use super::super::slab;
use super::super::{GuardKind, MIN_SIZE, PooledStack};
use super::*;
use std::cell::Cell;

thread_local! {
    /// Test switch: the time of trimming.
    pub(super) static CLOCK: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs `body` on a new thread, so that it starts with an empty pool.
fn on_fresh_pool<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(body).join().expect("the test's thread")
}

/// How many of these pages are in memory.
fn resident(pages: &[usize]) -> usize {
    let is_in = |page: &&usize| {
        let mut bits = 0;
        // SAFETY: one byte for one page; pages that are not mapped are an error.
        let asked = unsafe { libc::mincore(**page as *mut libc::c_void, PAGE, &mut bits) };
        asked == 0 && bits & 1 == 1
    };
    pages.iter().filter(is_in).count()
}

fn touch(stack: &PooledStack, depth: usize) {
    let mut addr = stack.base_addr() - 8;
    while addr + depth >= stack.base_addr() && addr > stack.limit_addr() {
        // SAFETY: within the stack, which is ours and not running.
        unsafe { (addr as *mut u64).write_volatile(u64::MAX) };
        addr -= 64;
    }
}

/// Whether this kernel has marker guards.
fn guards_are_markers() -> bool {
    let lo = acquire().unwrap().limit_addr() - (64 << 10);
    let smaps = std::fs::read_to_string("/proc/self/maps").unwrap();
    !smaps.contains(&format!("{lo:x}-"))
}

fn read(addr: usize) -> u64 {
    // SAFETY: callers name addresses within stacks that they hold.
    unsafe { (addr as *const u64).read_volatile() }
}

#[test]
fn the_shape_is_guard_stack_shared_page_annex() {
    on_fresh_pool(|| {
        for size in [MIN_SIZE, 256 << 10, 1 << 20, 4 << 20] {
            let s = acquire_sized(size).unwrap();
            let (annex, len) = s.annex();
            assert_eq!(s.size(), size);
            assert_eq!(annex as usize, s.base_addr());
            assert_eq!(s.base_addr() % 16, 0);
            let in_page = s.base_addr() % PAGE;
            assert!(
                (2048..=3072).contains(&in_page),
                "{in_page} bytes of C stack in the shared page"
            );
            assert_eq!((annex as usize + len) % PAGE, 0);
            let hit = slab::find(s.limit_addr()).unwrap();
            assert!(!hit.in_guard && hit.size == size && hit.limit == s.limit_addr());
            assert!(slab::find(s.limit_addr() - 1).unwrap().in_guard);
            assert!(
                slab::find(annex as usize + len - 1).is_some_and(|h| h.limit == s.limit_addr())
            );
            touch(&s, usize::MAX >> 1);
        }
    });
}

#[test]
fn the_last_stack_given_back_is_the_next_one_taken() {
    on_fresh_pool(|| {
        let (a, b) = (acquire().unwrap(), acquire().unwrap());
        let (at, bt) = (a.base_addr(), b.base_addr());
        assert_ne!(at, bt);
        let slabs_before = stats().mapped;
        release(b);
        release(a);
        for _ in 0..1000 {
            let (x, y) = (acquire().unwrap(), acquire().unwrap());
            assert_eq!((x.base_addr(), y.base_addr()), (at, bt));
            drop(y);
            drop(x);
        }
        assert_eq!(
            (stats().live, stats().mapped >= slabs_before.min(64 << 20)),
            (0, true)
        );
    });
}

#[test]
fn tops_differ_by_a_cache_line_from_slot_to_slot() {
    on_fresh_pool(|| {
        let all: Vec<_> = (0..32).map(|_| acquire().unwrap()).collect();
        let tops: std::collections::HashSet<_> = all.iter().map(|s| s.base_addr() % PAGE).collect();
        assert_eq!(tops.len(), 16);
    });
}

#[test]
fn a_hundred_thousand_live_stacks_take_few_maps_and_come_back() {
    on_fresh_pool(|| {
        let all: Vec<_> = (0..100_000).map(|_| acquire().unwrap()).collect();
        all.iter().for_each(|s| touch(s, 64));
        let maps = std::fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .count();
        assert_eq!(stats().live, 100_000);
        if guards_are_markers() {
            assert!(maps < 3000, "{maps} maps");
        }
        drop(all);
        assert_eq!(stats().live, 0);
    });
}

#[test]
fn idle_trimming_gives_memory_back_and_later_the_address_space() {
    on_fresh_pool(|| {
        CLOCK.set(Some(1));
        let all: Vec<_> = (0..20_000).map(|_| acquire().unwrap()).collect();
        all.iter().for_each(|s| touch(s, 64));
        let tops: Vec<_> = all
            .iter()
            .map(|s| (s.base_addr() - 8) / PAGE * PAGE)
            .collect();
        drop(all);
        assert!(trim_idle(), "it asks to be called again");
        assert_eq!(
            stats().trimmed,
            0,
            "as many as a moment ago may be needed again"
        );
        assert_eq!(resident(&tops), tops.len());
        let mut time = 1;
        // They are of two sizes, and each has a floor.
        while stats().warm > 2 * WARM_FLOOR {
            time += WINDOW / 100;
            CLOCK.set(Some(time));
            assert!(trim_idle());
        }
        assert!(time >= WINDOW);
        assert!(resident(&tops) <= 2 * WARM_FLOOR, "{}", resident(&tops));
        for _ in 0..4 {
            time += WINDOW;
            CLOCK.set(Some(time));
            trim_idle();
        }
        let s = stats();
        assert!(s.cold + s.warm < 20_000 / 4, "{s:?}");
        assert!(!trim_idle(), "nothing is left to do");
        // What is left still works.
        let again: Vec<_> = (0..3000).map(|_| acquire().unwrap()).collect();
        again.iter().for_each(|s| touch(s, 8192));
    });
}

#[test]
fn a_deep_stack_gives_up_its_depths_and_a_shallow_one_keeps_its_page() {
    on_fresh_pool(|| {
        let s = acquire().unwrap();
        let (low, base) = (s.limit_addr() + (64 << 10), s.base_addr());
        touch(&s, 24 << 10);
        release(s);
        assert_eq!(stats().deep, 0);
        let s = acquire().unwrap();
        assert_eq!(s.base_addr(), base);
        assert_eq!(read(base - 8), u64::MAX, "the top stays warm");
        touch(&s, usize::MAX >> 1);
        release(s);
        assert_eq!(stats().deep, 1);
        let s = acquire().unwrap();
        assert_eq!((read(low), read(base - 8)), (0, u64::MAX));
        // The annex is looked at as well.
        let (annex, len) = s.annex();
        // SAFETY: the annex is ours.
        unsafe { std::ptr::write_bytes(annex, 7, len) };
        release(s);
        assert_eq!(stats().deep, 2);
        // The next shallow use is not taken for a deep one.
        release(acquire().unwrap());
        assert_eq!(stats().deep, 2);
    });
}

#[test]
fn without_markers_guards_are_protected_pages() {
    on_fresh_pool(|| {
        guard::FORCED.set(Some(GuardKind::Protected));
        let s = acquire().unwrap();
        touch(&s, usize::MAX >> 1);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let below = format!(
            "{:x}-{:x} ---p",
            s.limit_addr() - s.0.class().guard(),
            s.limit_addr()
        );
        assert!(maps.contains(&below), "{below} in\n{maps}");
    });
}

#[test]
fn beyond_the_limit_of_maps_slabs_are_checked_instead() {
    on_fresh_pool(|| {
        guard::FORCED.set(Some(GuardKind::Protected));
        guard::FORCED_LIMIT.set(Some(0));
        let all: Vec<_> = (0..100).map(|_| acquire().unwrap()).collect();
        assert!(all.iter().all(|s| s.0.is_checked()));
        all.iter().for_each(|s| touch(s, 4096));
        drop(all);
    });
}

#[test]
fn stacks_given_back_elsewhere_and_by_ending_threads_are_used_again() {
    let odd_size = 32 << 20;
    let (kept, base) = on_fresh_pool(move || {
        let (a, b) = (
            acquire_sized(odd_size).unwrap(),
            acquire_sized(odd_size).unwrap(),
        );
        let base = b.base_addr();
        (a, base)
    });
    on_fresh_pool(move || {
        let b = acquire_sized(odd_size).unwrap();
        assert_eq!(b.base_addr(), base, "the orphan is adopted");
        let at = kept.base_addr();
        drop(kept);
        assert_eq!(acquire_sized(odd_size).unwrap().base_addr(), at);
    });
}

#[test]
fn address_space_that_runs_out_is_an_error_and_no_more() {
    // In a child of its own, because the limit is the process's.
    let test = "stack::pool::tests::child_with_little_address_space";
    let args = ["--exact", test, "--ignored", "--test-threads=1"];
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "limits its process: run in a child by another test"]
fn child_with_little_address_space() {
    let lim = libc::rlimit {
        rlim_cur: 1 << 33,
        rlim_max: 1 << 33,
    };
    // SAFETY: a valid struct.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &lim) }, 0);
    let mut all = Vec::with_capacity(1 << 10);
    let e = loop {
        match acquire_sized(16 << 20) {
            Ok(s) => all.push(s),
            Err(e) => break e,
        }
    };
    assert_eq!(e.raw_os_error(), Some(libc::ENOMEM));
    assert!(
        (400..512).contains(&all.len()),
        "{} stacks of 16 MiB in 8 GiB",
        all.len()
    );
    all.pop();
    assert!(acquire_sized(16 << 20).is_ok());
}
