//! The io_uring loop as it is on older kernels: the suite without what those lack.

use gevent_hub_core::event_loop::Loop;
use gevent_loop_uring::{Lacking, UringLoop};

fn without(names: &'static [&'static str]) -> Box<dyn Loop> {
    let errors = Vec::new();
    match UringLoop::lacking(Lacking { names, errors }) {
        Ok(l) => Box::new(l),
        Err(e) => gevent_conformance::skip(e),
    }
}

/// Linux 6.1: deferred completion work, but an array of indices, relative timeouts, waits that count as I/O.
mod linux_6_1 {
    use super::*;
    gevent_conformance::loop_suite!(|| without(&["no_sqarray", "min_timeout", "no_iowait"]));
}

/// Linux 5.13, the oldest that will do: no flags at all, no operations on paths, each cancel completes.
mod linux_5_13 {
    use super::*;
    gevent_conformance::loop_suite!(|| without(&[
        "no_sqarray",
        "defer_taskrun",
        "coop_taskrun",
        "submit_all",
        "min_timeout",
        "no_iowait",
        "cqe_skip",
        "openat",
    ]));
}
