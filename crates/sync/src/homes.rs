//! [`Homes`]: where hubs can be reached from other threads, by the number that names a hub for ever.

use gevent_hub_core::reactor::{Entry, Remote};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

struct Home<T> {
    hub: u64,
    remote: Arc<Remote>,
    about: T,
}

/// The hubs of the process, each with what its owner wants to be known of it.
pub struct Homes<T>(Mutex<Vec<Home<T>>>);

impl<T> Default for Homes<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Homes<T> {
    /// None yet.
    pub const fn new() -> Self {
        Homes(Mutex::new(Vec::new()))
    }

    /// Held for no longer than a look.
    fn list(&self) -> MutexGuard<'_, Vec<Home<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A hub can be reached from now on.
    pub fn arrive(&self, hub: u64, remote: Arc<Remote>, about: T) {
        self.leave(hub);
        self.list().push(Home { hub, remote, about });
    }

    /// It is no more.
    pub fn leave(&self, hub: u64) {
        let gone = {
            let mut homes = self.list();
            let at = homes.iter().position(|home| home.hub == hub);
            at.map(|at| homes.swap_remove(at))
        };
        drop(gone);
    }

    /// Whether a hub can be reached.
    pub fn exists(&self, hub: u64) -> bool {
        self.list()
            .iter()
            .any(|home| home.hub == hub && !home.remote.is_closed())
    }

    /// Puts an entry into a hub's queue, from any thread. `false` if the hub is gone.
    pub fn push(&self, hub: u64, entry: Entry) -> bool {
        let remote = self
            .list()
            .iter()
            .find(|home| home.hub == hub)
            .map(|home| home.remote.clone());
        remote.is_some_and(|remote| remote.push(entry))
    }
}

impl<T: Clone> Homes<T> {
    /// What its owner said of a hub.
    pub fn about(&self, hub: u64) -> Option<T> {
        self.list()
            .iter()
            .find(|home| home.hub == hub)
            .map(|home| home.about.clone())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use gevent_hub_core::hub::Hub;
    use gevent_hub_core::task;
    use gevent_loop_epoll::EpollLoop;

    #[test]
    fn a_hub_is_reached_while_it_lives() {
        let homes = Arc::new(Homes::new());
        let inside = homes.clone();
        let (id, remote) = task::run(Box::new(EpollLoop::new().unwrap()), move || {
            Hub::with(|hub| {
                let hub = hub.unwrap();
                let remote = hub.reactor().remote();
                inside.arrive(hub.id(), remote.clone(), "one");
                inside.arrive(hub.id(), remote.clone(), "again");
                assert!(inside.exists(hub.id()) && !inside.exists(hub.id() + 1));
                assert_eq!(inside.about(hub.id()), Some("again"));
                (hub.id(), remote)
            })
        })
        .unwrap();
        assert!(remote.is_closed() && !homes.exists(id));
        assert!(!homes.push(id, Entry::Call(0)));
        homes.leave(id);
        assert_eq!(homes.about(id), None);
    }
}
