//! Overflows happen in child processes: this test binary, run again for one ignored test.

use super::super::guard::{self, GuardKind};
use super::super::{PooledStack, acquire_sized};
use super::*;
use corosensei::Coroutine;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

const HOW: &str = "GEVENT_TEST_OVERFLOW";

fn child(how: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "stack::overflow::tests::overflowing_child",
            "--ignored",
            "--nocapture",
        ])
        .env(HOW, how)
        .output()
        .unwrap()
}

#[inline(never)]
fn recurse(n: u64) -> u64 {
    let block = std::hint::black_box([n; 32]);
    if n == 0 {
        0
    } else {
        recurse(n - 1) + block[(n % 32) as usize]
    }
}

fn name(out: &mut [u8]) -> usize {
    out[..4].copy_from_slice(b"'io'");
    4
}

extern "C" fn earlier_handler(_: c_int) {
    // SAFETY: async-signal-safe calls.
    unsafe {
        libc::write(2, b"earlier handler\n".as_ptr().cast(), 16);
        libc::_exit(77);
    }
}

/// As faulthandler: says its word, puts back the handler before it, and raises the signal again.
extern "C" fn later_handler(signal: c_int) {
    // SAFETY: async-signal-safe calls.
    unsafe {
        libc::write(2, b"later handler\n".as_ptr().cast(), 14);
        let mut a: libc::sigaction = MaybeUninit::zeroed().assume_init();
        a.sa_sigaction = on_fault as *const () as usize;
        a.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        libc::sigaction(signal, &a, ptr::null_mut());
        libc::raise(signal);
    }
}

#[test]
#[ignore = "crashes: run in a child by the other tests"]
fn overflowing_child() {
    let how = std::env::var(HOW).unwrap_or_default();
    if how.contains("chained") {
        // SAFETY: installs a handler that keeps to what handlers may do.
        unsafe {
            let mut a: libc::sigaction = MaybeUninit::zeroed().assume_init();
            a.sa_sigaction = earlier_handler as *const () as usize;
            a.sa_flags = libc::SA_ONSTACK;
            libc::sigaction(libc::SIGSEGV, &a, ptr::null_mut());
        }
    }
    install_guard_handler().unwrap();
    if how.contains("later") {
        // SAFETY: installs a handler that keeps to what handlers may do.
        unsafe {
            let mut a: libc::sigaction = MaybeUninit::zeroed().assume_init();
            a.sa_sigaction = later_handler as *const () as usize;
            a.sa_flags = libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(libc::SIGSEGV, &a, ptr::null_mut());
        }
    }
    if how.contains("raise") {
        // SAFETY: meant to kill.
        unsafe { libc::raise(libc::SIGSEGV) };
    }
    if how.contains("named") {
        set_fiber_namer(name);
    }
    if how.contains("protected") {
        guard::FORCED.set(Some(GuardKind::Protected));
    }
    if how.contains("null") {
        // SAFETY: none; it is meant to crash.
        unsafe { std::hint::black_box(ptr::null_mut::<u8>()).write_volatile(1) };
    }
    if how.contains("checked") {
        guard::FORCED.set(Some(GuardKind::Checked));
        let s: PooledStack = acquire_sized(256 << 10).unwrap();
        // SAFETY: ordinary memory of the slab, as such guards are.
        unsafe { ((s.limit_addr() - 16) as *mut u64).write_volatile(1) };
        drop(s);
    }
    let stack = acquire_sized(256 << 10).unwrap();
    let mut co =
        Coroutine::<(), (), u64, PooledStack>::with_stack(stack, |_, ()| recurse(u64::MAX));
    co.resume(());
}

#[test]
fn an_overflow_says_one_sentence_and_dies_as_a_crash() {
    for how in ["plain", "protected"] {
        let out = child(how);
        let err = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.signal(), Some(libc::SIGSEGV), "{err}");
        assert_eq!(err.matches("gevent: ").count(), 1, "{err}");
        assert!(
            err.contains("greenlet (unknown) overflowed its 256 KiB"),
            "{err}"
        );
        assert!(
            err.contains("GEVENT_STACK_SIZE") && err.contains("such as 512k"),
            "{err}"
        );
    }
}

#[test]
fn the_sentence_names_the_fiber_and_the_earlier_handler_follows() {
    let out = child("named chained");
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(77), "{err}");
    let ours = err
        .find("the C stack of greenlet 'io' overflowed")
        .expect(&err);
    assert!(err.find("earlier handler").expect(&err) > ours);
}

#[test]
fn a_handler_installed_later_that_raises_again_does_not_swallow_the_sentence() {
    let out = child("later named");
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.signal(), Some(libc::SIGSEGV), "{err}");
    let later = err.find("later handler").expect(&err);
    assert!(err.find("greenlet 'io' overflowed").expect(&err) > later);
    for sent in ["later raise", "raise", "later null"] {
        let out = child(sent);
        let err = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.signal(), Some(libc::SIGSEGV), "{sent}: {err}");
        assert!(!err.contains("gevent: "), "{sent}: {err}");
    }
}

#[test]
fn another_fault_is_none_of_our_business() {
    let out = child("null");
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.signal(), Some(libc::SIGSEGV), "{err}");
    assert!(!err.contains("gevent: "), "{err}");
}

#[test]
fn an_overflow_without_a_guard_is_noticed_when_the_stack_comes_back() {
    let out = child("checked");
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.signal(), Some(libc::SIGABRT), "{err}");
    assert!(err.contains("GEVENT_STACK_SIZE"), "{err}");
}

#[test]
fn each_thread_gets_an_alternate_stack_and_gives_it_back() {
    std::thread::spawn(|| {
        guard_this_thread().unwrap();
        // SAFETY: a query.
        let size = unsafe {
            let mut now: libc::stack_t = MaybeUninit::zeroed().assume_init();
            libc::sigaltstack(ptr::null(), &mut now);
            now.ss_size
        };
        assert!(size > 0);
    })
    .join()
    .unwrap();
}
