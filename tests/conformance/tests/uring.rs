//! The io_uring loop, where the kernel allows it.

use gevent_hub_core::event_loop::Loop;
use gevent_loop_uring::UringLoop;

gevent_conformance::loop_suite!(|| match UringLoop::new() {
    Ok(l) => Box::new(l) as Box<dyn Loop>,
    Err(e) => gevent_conformance::skip(e),
});
