//! Signal watchers (ev_signal): a process-wide handler that marks the signal and wakes the one reactor
//! that watches it.
//!
//! As in libev a signal belongs to one loop at a time. The disposition that was in force comes back when
//! the last watcher of a signal stops, unless somebody has installed another one meanwhile.

use super::{Reactor, Revents, WatcherId, watchers::Spec};
use crate::event_loop;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SIGNALS: usize = 64;

/// What the handler of a reactor's signals reaches.
pub(super) struct Target {
    /// Bit `signum - 1` for each signal that came.
    pending: AtomicU64,
    waker: Arc<dyn event_loop::Wake>,
}

/// The owner of each signal, by `signum - 1`.
static OWNERS: [AtomicPtr<Target>; SIGNALS] = [const { AtomicPtr::new(ptr::null_mut()) }; SIGNALS];
/// Handlers that may hold a pointer from `OWNERS`.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_signal(signum: libc::c_int) {
    let errno = crate::os::errno_location();
    // SAFETY: valid for this thread.
    let saved = unsafe { *errno };
    RUNNING.fetch_add(1, Ordering::SeqCst);
    let target = OWNERS[signum as usize - 1].load(Ordering::SeqCst);
    if !target.is_null() {
        // SAFETY: whoever takes a target away waits until no handler runs before it is freed.
        let target = unsafe { &*target };
        target.pending.fetch_or(1 << (signum - 1), Ordering::SeqCst);
        target.waker.wake();
    }
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    // SAFETY: as above.
    unsafe { *errno = saved };
}

struct Claim {
    signum: i32,
    users: u32,
    old: libc::sigaction,
}

#[derive(Default)]
pub(super) struct Signals {
    target: Option<Arc<Target>>,
    claims: Vec<Claim>,
}

impl Signals {
    fn take_pending(&self) -> u64 {
        match &self.target {
            Some(t) if t.pending.load(Ordering::Relaxed) != 0 => {
                t.pending.swap(0, Ordering::SeqCst)
            }
            _ => 0,
        }
    }

    pub(super) fn has_pending(&self) -> bool {
        self.target
            .as_ref()
            .is_some_and(|t| t.pending.load(Ordering::SeqCst) != 0)
    }

    /// Marks a signal as if it had come.
    pub(super) fn mark(&self, signum: i32) {
        if let Some(t) = &self.target {
            t.pending.fetch_or(1 << (signum - 1), Ordering::SeqCst);
        }
    }

    fn claim(&mut self, signum: i32, waker: Arc<dyn event_loop::Wake>) -> io::Result<()> {
        if !(1..=SIGNALS as i32).contains(&signum) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        if let Some(claim) = self.claims.iter_mut().find(|c| c.signum == signum) {
            claim.users += 1;
            return Ok(());
        }
        let target = self.target.get_or_insert_with(|| {
            Arc::new(Target {
                pending: AtomicU64::new(0),
                waker,
            })
        });
        let owner = &OWNERS[signum as usize - 1];
        let mine = Arc::as_ptr(target).cast_mut();
        if owner
            .compare_exchange(ptr::null_mut(), mine, Ordering::SeqCst, Ordering::SeqCst)
            .is_err()
        {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        match install(signum) {
            Ok(old) => {
                self.claims.push(Claim {
                    signum,
                    users: 1,
                    old,
                });
                Ok(())
            }
            Err(e) => {
                owner.store(ptr::null_mut(), Ordering::SeqCst);
                Err(e)
            }
        }
    }

    fn release(&mut self, signum: i32) {
        let Some(at) = self.claims.iter().position(|c| c.signum == signum) else {
            return;
        };
        self.claims[at].users -= 1;
        if self.claims[at].users == 0 {
            let claim = self.claims.swap_remove(at);
            give_up(&claim);
        }
    }

    pub(super) fn destroy(&mut self) {
        for claim in self.claims.drain(..) {
            give_up(&claim);
        }
        if let Some(target) = self.target.take() {
            quiesce(target);
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.destroy();
    }
}

/// Installs the handler and unblocks the signal in this thread, as libev does.
fn install(signum: i32) -> io::Result<libc::sigaction> {
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: plain data of the C library's, filled before use; `on_signal` is async-signal-safe.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = on_signal as *const () as usize;
        new.sa_flags = libc::SA_RESTART;
        libc::sigfillset(&mut new.sa_mask);
        if libc::sigaction(signum, &new, old.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signum);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut());
        Ok(old.assume_init())
    }
}

/// Restores what was in force before, if the handler is still ours.
fn give_up(claim: &Claim) {
    // SAFETY: plain calls with valid pointers.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(claim.signum, ptr::null(), &mut now) == 0
            && now.sa_sigaction == on_signal as *const () as usize
        {
            libc::sigaction(claim.signum, &claim.old, ptr::null_mut());
        }
    }
    OWNERS[claim.signum as usize - 1].store(ptr::null_mut(), Ordering::SeqCst);
}

/// Frees a target when no handler can hold it any more.
fn quiesce(target: Arc<Target>) {
    // A handler runs for microseconds. In a forked child the count may be that of a thread which does not
    // exist here: then the target is left to leak.
    let patience = Instant::now() + Duration::from_millis(20);
    while RUNNING.load(Ordering::SeqCst) != 0 {
        if Instant::now() > patience {
            std::mem::forget(target);
            return;
        }
        std::thread::yield_now();
    }
}

impl Reactor {
    pub(super) fn start_signal(&self, id: WatcherId, signum: i32) -> io::Result<()> {
        self.claim_signal(signum)?;
        self.activate(id);
        Ok(())
    }

    pub(super) fn claim_signal(&self, signum: i32) -> io::Result<()> {
        let waker = self.remote.waker();
        let waker = waker.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        self.signals.with(|s| s.claim(signum, waker))
    }

    pub(super) fn release_signal(&self, signum: i32) {
        self.signals.with(|s| s.release(signum));
    }

    /// The signal of a signal watcher.
    pub fn signum(&self, id: WatcherId) -> Option<i32> {
        self.watchers.with(|w| match w.spec(id) {
            Some(Spec::Signal { signum }) => Some(*signum),
            _ => None,
        })
    }

    /// Makes the watchers of `signum` due, as if the signal had come (`ev_feed_signal_event`).
    pub fn feed_signal(&self, signum: i32) {
        self.watchers.with(|w| {
            for id in w.signals().to_vec() {
                if matches!(w.spec(id), Some(Spec::Signal { signum: s }) if *s == signum) {
                    w.feed(id, Revents::SIGNAL);
                }
            }
        });
    }

    /// Turns the signals that came into events.
    pub(super) fn take_signals(&self) {
        let mut pending = self.signals.with(|s| s.take_pending());
        while pending != 0 {
            let signum = pending.trailing_zeros() as i32 + 1;
            pending &= pending - 1;
            self.feed_signal(signum);
            if signum == libc::SIGCHLD {
                self.reap_children();
            }
        }
    }
}
