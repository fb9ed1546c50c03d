//! The fake loop, with virtual time.

use gevent_hub_core::reactor::Reactor;
use gevent_hub_core::sim::Sim;

gevent_conformance::reactor_suite!(|| Reactor::for_tests(&Sim::new()));
