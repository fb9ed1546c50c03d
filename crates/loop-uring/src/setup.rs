//! Making a ring: the flags that this kernel takes, what it must have, and what a refusal says.

use io_uring::{IoUring, Probe, opcode};
use std::fmt;
use std::io;

/// The kernel refused, or is too old.
#[derive(Debug)]
pub struct Refused {
    /// The system call, and what it was asked for.
    pub call: &'static str,
    /// Its errno.
    pub errno: i32,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.errno {
            libc::ENOSYS => ": the kernel has no io_uring, or a filter hides it",
            libc::EPERM => {
                ": forbidden by kernel.io_uring_disabled or by a seccomp filter (containers do that)"
            }
            libc::ENOMEM => {
                ": no memory even for a small ring (RLIMIT_MEMLOCK, or the limit of the control group)"
            }
            libc::EMFILE | libc::ENFILE => ": too many open descriptors",
            _ => "",
        };
        let e = io::Error::from_raw_os_error(self.errno);
        write!(
            f,
            "io_uring is not usable here: {} failed with {e}{why}",
            self.call
        )
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for io::Error {
    /// The `Refused` stays inside: `get_ref` and `downcast_ref` find it and its errno.
    fn from(refused: Refused) -> Self {
        io::Error::new(io::Error::from_raw_os_error(refused.errno).kind(), refused)
    }
}

const SETUP: &str = "io_uring_setup(2)";

/// What was got.
pub(crate) struct Setup {
    pub(crate) ring: IoUring,
    /// Receives may be told to wait for readiness before their first attempt (Linux 5.19).
    pub(crate) poll_first: bool,
    /// A cancel that succeeds need not complete (5.17).
    pub(crate) skip_success: bool,
    /// Waits may be absolute (6.12).
    pub(crate) absolute: bool,
    /// Waits need not count as waits for I/O (6.15).
    pub(crate) no_iowait: bool,
    /// openat, statx and fsync are there.
    pub(crate) paths: bool,
}

/// What a kernel lacks, for tests of how the loop does without it: `setup` flags, features and operations by
/// their names in the kernel's header, in small letters and without the prefix.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct Lacking {
    /// What is missing.
    pub names: &'static [&'static str],
    /// Errors that the first attempts to make a ring give.
    pub errors: Vec<i32>,
}

impl Lacking {
    fn has(&self, name: &str) -> bool {
        !self.names.contains(&name)
    }
}

#[derive(Clone, Copy)]
enum Level {
    /// 6.6: without the array of indices.
    NoArray,
    /// 6.1: completion work runs only when we ask for it.
    Deferred,
    /// 5.19: it runs at kernel transitions, without interrupting.
    Cooperative,
    /// 5.18
    SubmitAll,
    Plain,
}

/// Completions that fit before the kernel has to keep them aside.
const COMPLETIONS: u32 = 4096;

/// The submission queue at first, and the least that is tried when memory is short.
const ENTRIES: std::ops::RangeInclusive<u32> = 8..=512;

fn build(level: Level, entries: u32, lacking: &mut Lacking) -> io::Result<IoUring> {
    let flag = match level {
        Level::NoArray => "no_sqarray",
        Level::Deferred => "defer_taskrun",
        Level::Cooperative => "coop_taskrun",
        Level::SubmitAll => "submit_all",
        Level::Plain => "",
    };
    if !lacking.has(flag) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if !lacking.errors.is_empty() {
        return Err(io::Error::from_raw_os_error(lacking.errors.remove(0)));
    }
    let mut b = IoUring::builder();
    b.dontfork()
        .setup_clamp()
        .setup_cqsize(COMPLETIONS.min(entries * 16));
    match level {
        Level::Plain => {}
        Level::SubmitAll => {
            b.setup_submit_all();
        }
        Level::Cooperative => {
            b.setup_submit_all()
                .setup_coop_taskrun()
                .setup_taskrun_flag();
        }
        Level::Deferred | Level::NoArray => {
            b.setup_submit_all()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_taskrun_flag();
        }
    }
    if matches!(level, Level::NoArray) {
        b.setup_no_sqarray();
    }
    b.build(entries)
}

/// The largest ring of the calling thread that the kernel makes, with the most of what it knows.
fn largest(lacking: &mut Lacking) -> Result<(IoUring, Level), Refused> {
    let levels = [
        Level::NoArray,
        Level::Deferred,
        Level::Cooperative,
        Level::SubmitAll,
        Level::Plain,
    ];
    let (mut at, mut entries) = (0, *ENTRIES.end());
    loop {
        match build(levels[at], entries, lacking) {
            Ok(ring) => return Ok((ring, levels[at])),
            Err(e) => match e.raw_os_error().unwrap_or(libc::EINVAL) {
                libc::EINVAL if at + 1 < levels.len() => at += 1,
                libc::ENOMEM if entries > *ENTRIES.start() => entries /= 2,
                errno => return Err(Refused { call: SETUP, errno }),
            },
        }
    }
}

/// Makes a ring of the calling thread.
pub(crate) fn open(lacking: &Lacking) -> Result<Setup, Refused> {
    let mut lacking = lacking.clone();
    let (ring, level) = largest(&mut lacking)?;
    let p = ring.params();
    let old = |call| {
        Err(Refused {
            call,
            errno: libc::ENOSYS,
        })
    };
    let has = |name: &str, it: bool| it && lacking.has(name);
    if !(has("nodrop", p.is_feature_nodrop())
        && has("ext_arg", p.is_feature_ext_arg())
        && has("fast_poll", p.is_feature_fast_poll()))
    {
        return old("io_uring_setup(2) without the features of Linux 5.11");
    }
    if !has("rsrc_tags", p.is_feature_resource_tagging()) {
        return old("io_uring_setup(2) without the multishot polls of Linux 5.13");
    }
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|e| Refused {
            call: "io_uring_register(2) of a probe",
            errno: e.raw_os_error().unwrap_or(libc::EINVAL),
        })?;
    let can = |(name, code): &(&str, u8)| has(name, probe.is_supported(*code));
    let needed = [
        ("poll_add", opcode::PollAdd::CODE),
        ("async_cancel", opcode::AsyncCancel::CODE),
        ("recv", opcode::Recv::CODE),
        ("send", opcode::Send::CODE),
        ("recvmsg", opcode::RecvMsg::CODE),
        ("sendmsg", opcode::SendMsg::CODE),
        ("accept", opcode::Accept::CODE),
        ("connect", opcode::Connect::CODE),
        ("read", opcode::Read::CODE),
        ("write", opcode::Write::CODE),
    ];
    if !needed.iter().all(can) {
        return old("io_uring_register(2), by whose probe socket operations are missing,");
    }
    let paths = [
        ("openat", opcode::OpenAt::CODE),
        ("statx", opcode::Statx::CODE),
        ("fsync", opcode::Fsync::CODE),
    ];
    // A filter may let a ring be made and not be used.
    // SAFETY: nothing is submitted and nothing is waited for.
    if let Err(e) = unsafe { ring.submitter().enter::<libc::sigset_t>(0, 0, 0, None) } {
        return Err(Refused {
            call: "io_uring_enter(2)",
            errno: e.raw_os_error().unwrap_or(libc::EINVAL),
        });
    }
    Ok(Setup {
        poll_first: matches!(level, Level::NoArray | Level::Deferred | Level::Cooperative),
        skip_success: has("cqe_skip", p.is_feature_skip_cqe_on_success()),
        absolute: has("min_timeout", p.is_feature_min_timeout()),
        no_iowait: has("no_iowait", p.is_feature_no_iowait()),
        paths: paths.iter().all(can),
        ring,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_of_flags_makes_a_ring_here() {
        for level in [
            Level::NoArray,
            Level::Deferred,
            Level::Cooperative,
            Level::SubmitAll,
            Level::Plain,
        ] {
            let ring = build(level, 64, &mut Lacking::default()).unwrap();
            assert!(ring.params().is_feature_ext_arg());
        }
    }

    #[test]
    fn a_refusal_names_the_call_and_the_errno() {
        let e = io::Error::from(Refused {
            call: SETUP,
            errno: libc::EPERM,
        });
        let text = e.to_string();
        assert!(
            text.contains("io_uring_setup(2)") && text.contains("os error 1"),
            "{text}"
        );
        assert_eq!(e.kind(), io::ErrorKind::PermissionDenied);
        let inner = e
            .get_ref()
            .and_then(|e| e.downcast_ref::<Refused>())
            .unwrap();
        assert_eq!(inner.errno, libc::EPERM);
    }
}
