//! What the benches share: the loops that this machine has, and mio as the baseline.

use gevent_hub_core::event_loop::Loop;
use gevent_loop_epoll::EpollLoop;
use gevent_loop_kqueue::KqueueLoop;
use gevent_loop_uring::UringLoop;
use gevent_mio_loop::MioLoop;
use std::io;

/// Makes a loop.
pub type Make = fn() -> io::Result<Box<dyn Loop>>;

/// All loops by name. `kqueue` is the emulation where the system has none.
const LOOPS: [(&str, Make); 4] = [
    ("epoll", || Ok(Box::new(EpollLoop::new()?))),
    ("uring", || Ok(Box::new(UringLoop::new()?))),
    ("kqueue", || Ok(Box::new(KqueueLoop::new()?))),
    ("mio", || Ok(Box::new(MioLoop::new()?))),
];

/// Calls `bench` with each loop's name and constructor.
pub fn each_kind(mut bench: impl FnMut(&str, Make)) {
    for (name, make) in LOOPS {
        match make() {
            Ok(_) => bench(name, make),
            Err(e) => eprintln!("{name} left out: {e}"),
        }
    }
}

/// Calls `bench` with each loop.
#[allow(dead_code, reason = "not every bench wants one loop only")]
pub fn each(mut bench: impl FnMut(&str, Box<dyn Loop>)) {
    each_kind(|name, make| bench(name, make().expect("it was made a moment ago")));
}
