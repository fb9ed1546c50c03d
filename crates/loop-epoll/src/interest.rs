//! Readiness as epoll_ctl(2) has it.

use gevent_hub_core::event_loop::{Interest, Readiness};

/// What the main set asks for, of every descriptor with an edge watcher or an operation.
pub(crate) const EDGE: u32 =
    (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET) as u32;

pub(crate) fn level_events(want: Interest) -> u32 {
    let mut events = 0;
    if want.has(Readiness::READ) {
        events |= libc::EPOLLIN;
    }
    if want.has(Readiness::WRITE) {
        events |= libc::EPOLLOUT;
    }
    if want.has(Readiness::PRI) {
        events |= libc::EPOLLPRI;
    }
    events as u32
}

pub(crate) fn readiness(events: u32) -> Readiness {
    let pairs = [
        (libc::EPOLLIN, Readiness::READ),
        (libc::EPOLLOUT, Readiness::WRITE),
        (libc::EPOLLRDHUP, Readiness::RDHUP),
        (libc::EPOLLHUP, Readiness::HUP),
        (libc::EPOLLERR, Readiness::ERR),
        (libc::EPOLLPRI, Readiness::PRI),
    ];
    let set = pairs.iter().filter(|(bit, _)| events & *bit as u32 != 0);
    set.fold(Readiness::NONE, |all, (_, r)| all.with(*r))
}
