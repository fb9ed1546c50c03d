//! Operations that wait for each other: who came first to a descriptor gets the first bytes.
//!
//! The kernel serves what is parked at a descriptor last in first out, and lets reads and writes at a file's own
//! position that are under way at the same time begin at the same place. So it is given one of each kind, and
//! the next when that is over.

use crate::descriptor::is_regular;
use crate::requests::{Phase, Requests, What};
use gevent_hub_core::event_loop::Op;

/// What has an order on a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Turn {
    writes: bool,
    /// By read(2) or write(2), which use the position of a regular file.
    moves: bool,
}

fn turn_of(op: &Op) -> Option<Turn> {
    let aside = libc::MSG_OOB | libc::MSG_ERRQUEUE;
    let (writes, moves) = match *op {
        Op::Recv { flags, .. } | Op::RecvMsg { flags, .. } if flags & aside == 0 => (false, false),
        Op::Send { flags, .. } | Op::SendMsg { flags, .. } if flags & aside == 0 => (true, false),
        Op::Accept { .. } => (false, false),
        Op::Read { offset, .. } if offset < 0 => (false, true),
        Op::Write { offset, .. } if offset < 0 => (true, true),
        _ => return None,
    };
    Some(Turn { writes, moves })
}

impl Requests {
    fn turn(&self, index: u32) -> Option<Turn> {
        match self.peek(index).what {
            // SAFETY: pinned until it is over, by the contract of `start`.
            What::Op { op, .. } => turn_of(unsafe { &*op }),
            _ => None,
        }
    }

    /// Whether the operation `index` has to wait for one that came before it.
    pub(crate) fn is_behind(&self, index: u32) -> bool {
        let Some(me) = self.turn(index) else {
            return false;
        };
        let mut shared = false;
        for turn in self.older(index).filter_map(|i| self.turn(i)) {
            if turn.writes == me.writes {
                return true;
            }
            shared |= turn.moves && me.moves;
        }
        shared && is_regular(self.peek(index).fd)
    }

    /// Removes an operation that is over; gives the one that waited for it and can go on now.
    pub(crate) fn finish(&mut self, index: u32) -> Option<u32> {
        let (turn, fd) = (self.turn(index), self.peek(index).fd);
        let others_wait = turn.is_some() && !self.is_behind(index);
        self.remove(index);
        let turn = turn.filter(|_| others_wait)?;
        let mut first = true;
        for next in self.oldest(fd) {
            let Some(its) = self.turn(next) else {
                continue;
            };
            // The first of all may have waited for a file's position, the first of its kind for its turn.
            if (first || its.writes == turn.writes)
                && self.peek(next).phase == Phase::Waiting
                && !self.is_behind(next)
            {
                return Some(next);
            }
            if its.writes == turn.writes {
                return None;
            }
            first = false;
        }
        None
    }
}
