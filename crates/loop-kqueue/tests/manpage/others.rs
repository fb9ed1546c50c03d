//! User events, timers, processes, signals.

use super::*;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn user(flags: u16, notes: u32) -> Kevent {
    Kevent::new(1, EVFILT_USER, flags).notes(notes)
}

#[test]
fn user_events_are_triggered_also_from_other_threads() {
    let q = Queue::open().unwrap();
    change(&q, user(EV_ADD | EV_CLEAR, 0));
    none(&q);
    std::thread::scope(|s| {
        s.spawn(|| {
            std::thread::sleep(Duration::from_millis(10));
            (0..10).for_each(|_| change(&q, user(0, NOTE_TRIGGER)));
        });
        assert_eq!(one(&q).ident, 1);
    });
    events(&q, 0);
    none(&q);
}

#[test]
fn a_user_event_without_ev_clear_stays_triggered() {
    let q = Queue::open().unwrap();
    change(&q, user(EV_ADD, 0));
    change(&q, user(0, NOTE_TRIGGER));
    one(&q);
    one(&q);
    change(&q, user(EV_DELETE, 0));
    none(&q);
    change(&q, user(EV_ADD, 0));
    none(&q);
}

#[test]
fn user_flags_are_combined_as_asked() {
    let q = Queue::open().unwrap();
    change(&q, user(EV_ADD | EV_CLEAR, 0));
    for given in [0x0f, 0x31] {
        change(&q, user(0, NOTE_FFCOPY | given | NOTE_TRIGGER));
        assert_eq!(one(&q).fflags & NOTE_FFLAGSMASK, given);
    }
    change(&q, user(0, NOTE_FFCOPY | 0x30));
    change(&q, user(0, NOTE_FFOR | 0x03));
    change(&q, user(0, NOTE_FFAND | 0x12 | NOTE_TRIGGER));
    assert_eq!(one(&q).fflags & NOTE_FFLAGSMASK, 0x12);
}

#[test]
fn timers_repeat_and_count_what_was_missed() {
    let q = Queue::open().unwrap();
    let mut t = Kevent::new(1, EVFILT_TIMER, EV_ADD);
    t.data = 2;
    change(&q, t);
    assert!(one(&q).data >= 1);
    std::thread::sleep(Duration::from_millis(20));
    assert!(one(&q).data >= 5);
    change(&q, Kevent::new(1, EVFILT_TIMER, EV_DELETE));
    none(&q);
    t.flags = EV_ADD | EV_ONESHOT;
    change(&q, t);
    assert_eq!(one(&q).data, 1);
    none(&q);
}

fn exiting(code: i32, after: u32) -> libc::pid_t {
    // SAFETY: the child only sleeps and ends.
    unsafe {
        match libc::fork() {
            0 => {
                libc::usleep(after);
                libc::_exit(code)
            }
            pid => pid,
        }
    }
}

fn reap(pid: libc::pid_t) {
    // SAFETY: no status is asked for.
    let reaped = unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    assert_eq!(reaped, pid);
}

fn exit_of(pid: libc::pid_t) -> Kevent {
    Kevent::new(pid as usize, EVFILT_PROC, EV_ADD).notes(NOTE_EXIT)
}

#[test]
fn the_end_of_a_process_is_told_once_with_its_status() {
    let q = Queue::open().unwrap();
    let pid = exiting(7, 50_000);
    change(&q, exit_of(pid));
    none(&q);
    let e = one(&q);
    assert_eq!((e.ident, e.fflags & NOTE_EXIT), (pid as usize, NOTE_EXIT));
    assert_eq!(
        (e.flags & EV_EOF, libc::WEXITSTATUS(e.data as i32)),
        (EV_EOF, 7)
    );
    none(&q);
    reap(pid);
    assert_eq!(refusal(&q, exit_of(pid)), Some(libc::ESRCH));
}

#[test]
fn a_process_and_a_descriptor_of_one_number_are_two_events() {
    let q = Queue::open().unwrap();
    let pid = exiting(0, 50_000);
    let (a, mut b) = pair();
    // SAFETY: if the number is out of range, or another's, there is no such descriptor and nothing to test.
    let copy = unsafe {
        let fd = libc::fcntl(a.as_raw_fd(), libc::F_DUPFD_CLOEXEC, pid);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
    };
    if let Some(copy) = copy.filter(|c| c.as_raw_fd() == pid) {
        change(&q, of(&copy, EVFILT_READ, EV_ADD | EV_CLEAR));
        change(&q, exit_of(pid));
        b.write_all(b"x").unwrap();
        assert_eq!(one(&q).filter, EVFILT_READ);
        assert_eq!(one(&q).filter, EVFILT_PROC);
    }
    reap(pid);
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn handle(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn signals_are_observed_and_ignored_ones_too_and_handled_as_well() {
    let q = Queue::open().unwrap();
    let signum = libc::SIGUSR2;
    // SAFETY: signals to this thread, which are ignored or handled by counting.
    let raise = || unsafe { libc::raise(signum) };
    // SAFETY: as above.
    let dispose = |how| unsafe { libc::signal(signum, how) };
    dispose(libc::SIG_IGN);
    change(&q, Kevent::new(signum as usize, EVFILT_SIGNAL, EV_ADD));
    none(&q);
    raise();
    let e = one(&q);
    assert_eq!((e.ident, e.data), (signum as usize, 1));
    none(&q);
    dispose(handle as *const () as libc::sighandler_t);
    raise();
    one(&q);
    assert_eq!(HANDLED.load(Ordering::SeqCst), 1);
    change(&q, Kevent::new(signum as usize, EVFILT_SIGNAL, EV_DELETE));
    raise();
    assert_eq!(HANDLED.load(Ordering::SeqCst), 2);
    none(&q);
}
