//! The reference loop, on mio.

use gevent_hub_core::event_loop::Loop;
use gevent_mio_loop::MioLoop;

gevent_conformance::loop_suite!(|| Box::new(MioLoop::new().unwrap()) as Box<dyn Loop>);
