//! The kqueue loop: on Linux, on its emulation of kevent(2).

use gevent_hub_core::event_loop::Loop;
use gevent_loop_kqueue::KqueueLoop;

gevent_conformance::loop_suite!(|| Box::new(KqueueLoop::new().unwrap()) as Box<dyn Loop>);
