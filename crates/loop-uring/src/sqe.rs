//! An operation of the [`Loop`](gevent_hub_core::event_loop::Loop) contract as a submission queue entry.

use gevent_hub_core::event_loop::{Interest, Op, Readiness};
use io_uring::squeue::Entry;
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue, types};
use std::os::fd::RawFd;

/// `IORING_RECVSEND_POLL_FIRST`: no attempt before the socket says that it is ready.
const POLL_FIRST: u16 = 1;
/// The most that one read or write moves.
const MOST: usize = 0x7fff_f000;

/// What poll(2) should look for.
pub(crate) fn poll_mask(want: Interest) -> u32 {
    let mut mask = 0;
    if want.has(Readiness::READ) {
        mask |= libc::POLLIN;
    }
    if want.has(Readiness::WRITE) {
        mask |= libc::POLLOUT;
    }
    if want.has(Readiness::PRI) {
        mask |= libc::POLLPRI;
    }
    mask as u32
}

/// What an edge-triggered registration latches besides.
pub(crate) const LATCHED: u32 = (libc::POLLRDHUP | libc::POLLPRI) as u32;

/// The bits of poll(2) as the contract's.
pub(crate) fn readiness(mask: u32) -> Readiness {
    let pairs = [
        (libc::POLLIN, Readiness::READ),
        (libc::POLLOUT, Readiness::WRITE),
        (libc::POLLRDHUP, Readiness::RDHUP),
        (libc::POLLHUP, Readiness::HUP),
        (libc::POLLERR | libc::POLLNVAL, Readiness::ERR),
        (libc::POLLPRI, Readiness::PRI),
    ];
    pairs
        .iter()
        .filter(|(bit, _)| mask & *bit as u32 != 0)
        .fold(Readiness::NONE, |all, (_, r)| all.with(*r))
}

/// A poll of `fd`.
pub(crate) fn poll(fd: RawFd, mask: u32, multishot: bool) -> Entry {
    opcode::PollAdd::new(Fd(fd), mask).multi(multishot).build()
}

/// The descriptor that `op` works on; negative for none.
pub(crate) fn fd_of(op: &Op) -> RawFd {
    match *op {
        Op::Fsync { fd, .. } => fd,
        Op::OpenAt { dir, .. } | Op::Statx { dir, .. } => dir,
        _ => op.awaited_fd().unwrap_or(-1),
    }
}

/// What to poll for when the kernel hands `op` back with EAGAIN, if that is to be hidden. A connect's is a
/// result: the backlog of a Unix socket is full, and its poll would not wait for room.
pub(crate) fn wait_for(op: &Op) -> Option<Interest> {
    match op {
        Op::Recv { .. } | Op::RecvMsg { .. } | Op::Accept { .. } | Op::Read { .. } => {
            Some(Readiness::READ)
        }
        Op::Send { .. } | Op::SendMsg { .. } | Op::Write { .. } => Some(Readiness::WRITE),
        Op::Poll { want, .. } => Some(*want),
        _ => None,
    }
}

/// Whether `op` uses and moves the descriptor's own position, if it has one.
pub(crate) fn moves(op: &Op) -> bool {
    matches!(op, Op::Read { offset, .. } | Op::Write { offset, .. } if *offset < 0)
}

/// Whether doing `op` twice, in a parent and in its forked child, is not what one asked for: it sends or writes.
pub(crate) fn writes(op: &Op) -> bool {
    matches!(op, Op::Send { .. } | Op::SendMsg { .. } | Op::Write { .. })
}

/// Whether a completion of `op` tells if the socket has more to receive.
pub(crate) fn receives(op: &Op) -> bool {
    matches!(op, Op::Recv { .. } | Op::RecvMsg { .. } | Op::Accept { .. })
}

/// `op` as an entry. A receive first waits for readiness if `poll_first`.
pub(crate) fn build(op: &Op, poll_first: bool) -> Option<Entry> {
    let ioprio = if poll_first { POLL_FIRST } else { 0 };
    // With MSG_DONTWAIT the kernel would give up where it is meant to wait.
    let waiting = |flags: i32| flags & !libc::MSG_DONTWAIT;
    let entry = match *op {
        Op::Recv {
            fd,
            buf,
            len,
            flags,
        } => opcode::Recv::new(Fd(fd), buf, len.min(MOST) as u32)
            .flags(waiting(flags))
            .ioprio(ioprio)
            .build(),
        Op::Send {
            fd,
            buf,
            len,
            flags,
        } => opcode::Send::new(Fd(fd), buf, len.min(MOST) as u32)
            .flags(waiting(flags))
            .build(),
        Op::RecvMsg { fd, msg, flags } => opcode::RecvMsg::new(Fd(fd), msg)
            .flags(waiting(flags) as u32)
            .ioprio(ioprio)
            .build(),
        Op::SendMsg { fd, msg, flags } => opcode::SendMsg::new(Fd(fd), msg)
            .flags(waiting(flags) as u32)
            .build(),
        Op::Accept { fd, addr, len } => opcode::Accept::new(Fd(fd), addr.cast(), len)
            .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
            .build(),
        Op::Connect { fd, addr, len } => opcode::Connect::new(Fd(fd), addr.cast(), len).build(),
        Op::Read {
            fd,
            buf,
            len,
            offset,
        } => opcode::Read::new(Fd(fd), buf, len.min(MOST) as u32)
            .offset(offset as u64)
            .build(),
        Op::Write {
            fd,
            buf,
            len,
            offset,
        } => opcode::Write::new(Fd(fd), buf, len.min(MOST) as u32)
            .offset(offset as u64)
            .build(),
        Op::Fsync { fd, data_only } => {
            let flags = if data_only {
                FsyncFlags::DATASYNC
            } else {
                FsyncFlags::empty()
            };
            opcode::Fsync::new(Fd(fd)).flags(flags).build()
        }
        Op::OpenAt {
            dir,
            path,
            flags,
            mode,
        } => opcode::OpenAt::new(Fd(dir), path)
            .flags(flags | libc::O_CLOEXEC)
            .mode(mode)
            .build()
            // The attempt that the kernel would make at first opens with O_NONBLOCK, and so does not wait for the
            // other end of a FIFO.
            .flags(squeue::Flags::ASYNC),
        Op::Statx {
            dir,
            path,
            flags,
            mask,
            out,
        } => opcode::Statx::new(Fd(dir), path, out.cast::<types::statx>())
            .flags(flags)
            .mask(mask)
            .build(),
        Op::Poll { fd, want } => poll(fd, poll_mask(want), false),
        _ => return None,
    };
    Some(entry)
}
