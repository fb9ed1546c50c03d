//! The epoll loop.

use gevent_hub_core::event_loop::Loop;
use gevent_loop_epoll::EpollLoop;

gevent_conformance::loop_suite!(|| Box::new(EpollLoop::new().unwrap()) as Box<dyn Loop>);
