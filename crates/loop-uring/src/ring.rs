//! The queues of a ring, and io_uring_enter(2).

use crate::setup::Setup;
use gevent_hub_core::event_loop::Until;
use io_uring::{EnterFlags, IoUring, cqueue, squeue};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::AsRawFd;

/// `struct io_uring_getevents_arg`. The crate's own wrapper passes the size of glibc's signal set, which
/// the kernel refuses: its sets have 8 bytes.
#[repr(C)]
struct WaitArg {
    sigmask: u64,
    sigmask_len: u32,
    min_wait_usec: u32,
    timeout: u64,
}

#[repr(C)]
struct Timespec {
    sec: i64,
    nsec: i64,
}

impl From<u64> for Timespec {
    fn from(nanos: u64) -> Self {
        Timespec {
            sec: (nanos / 1_000_000_000) as i64,
            nsec: (nanos % 1_000_000_000) as i64,
        }
    }
}

/// A completion: user data, result, flags.
pub(crate) type Completion = (u64, i32, u32);

pub(crate) struct Ring {
    /// `None` only on the way out.
    ring: Option<IoUring>,
    absolute: bool,
    no_iowait: bool,
    pub(crate) syscalls: u64,
    /// Entries that went in with a call that was made anyway.
    pub(crate) saved: u64,
}

impl Ring {
    /// Takes the ring out of `setup`.
    pub(crate) fn new(setup: Setup) -> Self {
        Ring {
            absolute: setup.absolute,
            no_iowait: setup.no_iowait,
            ring: Some(setup.ring),
            syscalls: 0,
            saved: 0,
        }
    }

    fn ring(&mut self) -> &mut IoUring {
        self.ring.as_mut().expect("taken only when dropped")
    }

    /// Has the kernel write to the eventfd `bell` at each completion, and for work that is left to us.
    pub(crate) fn ring_bell(&mut self, bell: i32) -> io::Result<()> {
        self.ring().submitter().register_eventfd(bell)
    }

    /// Queues `entry`; if there is no room, enters first, and says false if that made none.
    ///
    /// # Safety
    /// What the entry points to stays valid until its completion.
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the caller's promise.
        if unsafe { self.ring().submission().push(entry) }.is_ok() {
            return true;
        }
        // A refusal shows in the second attempt.
        let _ = self.enter(None);
        // SAFETY: as above.
        unsafe { self.ring().submission().push(entry) }.is_ok()
    }

    /// Whether an enter that does not wait would have anything to do.
    pub(crate) fn has_work(&mut self) -> bool {
        let sq = self.ring().submission();
        !sq.is_empty() || sq.taskrun() || sq.cq_overflow()
    }

    /// Whether completion work is left to do.
    pub(crate) fn work_left(&mut self) -> bool {
        self.ring().submission().taskrun()
    }

    /// Whether completions are waiting to be [taken](Self::take).
    pub(crate) fn has_completions(&mut self) -> bool {
        !self.ring().completion().is_empty()
    }

    /// Whether the kernel keeps completions aside for which there was no room.
    pub(crate) fn overflown(&mut self) -> bool {
        self.ring().submission().cq_overflow()
    }

    /// Submits what is queued and lets completions come in; with `wait` it sleeps until there is one, for
    /// as long as it says.
    ///
    /// # Errors
    /// Not for interruptions, timeouts and passing shortages.
    pub(crate) fn enter(&mut self, wait: Option<Until>) -> io::Result<()> {
        let mut flags = EnterFlags::GETEVENTS;
        let mut arg = WaitArg {
            sigmask: 0,
            sigmask_len: 0,
            min_wait_usec: 0,
            timeout: 0,
        };
        let timeout: Timespec;
        let mut want = 0;
        match wait {
            None | Some(Until::Now) => {}
            Some(until) => {
                want = 1;
                flags |= EnterFlags::EXT_ARG;
                if let Until::At(deadline) = until {
                    timeout = if self.absolute {
                        flags |= EnterFlags::ABS_TIMER;
                        deadline.into()
                    } else {
                        deadline.saturating_sub(now()).into()
                    };
                    arg.timeout = (&raw const timeout) as u64;
                }
                if self.no_iowait {
                    flags |= EnterFlags::NO_IOWAIT;
                }
            }
        }
        let arg = flags.contains(EnterFlags::EXT_ARG).then_some(&arg);
        self.call(want, flags, arg)
    }

    fn call(&mut self, want: u32, flags: EnterFlags, arg: Option<&WaitArg>) -> io::Result<()> {
        self.syscalls += 1;
        let ring = self.ring();
        let queued = ring.submission().len() as u32;
        let carried = u64::from(queued).saturating_sub(u64::from(want == 0));
        // SAFETY: the argument has the layout that EXT_ARG asks for, and what it points to outlives the call.
        match unsafe { ring.submitter().enter(queued, want, flags.bits(), arg) } {
            Ok(_) => {
                self.saved += carried;
                Ok(())
            }
            // EBUSY: completions must be taken first. EAGAIN: no memory for a request just now.
            Err(e) => match e.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(e),
            },
        }
    }

    /// Takes up to a batch of completions; none when there are no more.
    pub(crate) fn take<'a>(
        &mut self,
        batch: &'a mut Batch,
    ) -> impl Iterator<Item = Completion> + 'a {
        let taken = self.ring().completion().fill(&mut batch.0);
        taken.iter().map(|c| (c.user_data(), c.result(), c.flags()))
    }

    /// In a forked child: leaves the parent's ring, whose memory is not mapped here, and takes another.
    pub(crate) fn replace(&mut self, setup: Setup) {
        self.leave();
        let (syscalls, saved) = (self.syscalls, self.saved);
        *self = Ring::new(setup);
        (self.syscalls, self.saved) = (syscalls, saved);
    }

    /// Closes the descriptor and touches nothing else.
    pub(crate) fn leave(&mut self) {
        if let Some(ring) = self.ring.take() {
            let fd = ring.as_raw_fd();
            // Its drop would unmap addresses that may be somebody else's by now.
            mem::forget(ring);
            // SAFETY: ours; nobody else closes it.
            unsafe { libc::close(fd) };
        }
    }
}

/// Room for completions.
pub(crate) struct Batch([MaybeUninit<cqueue::Entry>; 64]);

impl Batch {
    pub(crate) fn new() -> Self {
        Batch([const { MaybeUninit::uninit() }; 64])
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
pub(crate) fn now() -> u64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: an out pointer that is valid for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
