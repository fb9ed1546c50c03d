//! What a forked child does with the loop that it inherits.

use super::timers::is_watcher;
use super::watchers::Spec;
use super::{Class, Entry, Reactor, WatcherId};

impl Reactor {
    /// In a forked child (`ev_loop_fork`): makes the kernel's objects anew; fork watchers run in the next
    /// iteration. Child watchers of the parent's children stay active and hear nothing.
    ///
    /// # Errors
    /// What the backend says; it cannot be used then.
    pub fn after_fork(&self) -> std::io::Result<()> {
        if self.is_destroyed() {
            return Ok(());
        }
        self.forked.set(true);
        self.forks.set(self.forks.get() + 1);
        // First of all: until then, whatever is stopped would be stopped in the parent.
        self.with_backend(|b| b.after_fork())?;
        self.forget_children(|_| true);
        self.renew_hints();
        Ok(())
    }

    /// How often [`after_fork`](Self::after_fork) was called: whoever has a thread beside the loop's sees by it
    /// that this process does not have it.
    pub fn forks(&self) -> u32 {
        self.forks.get()
    }

    /// In a forked child where only the running fiber goes on: forgets what would run anything of the others.
    /// Stops the watchers that call on their own account (descriptors, timers, phases, paths), less those
    /// whose data `keep_watcher` picks; signals, fork watchers and messages of threads stay. Takes calls that
    /// `keep_call` does not pick out of the queue, without running or freeing them. Ends waits and
    /// operations of descriptors, and every park's deadline. Parks themselves are the hub's.
    pub fn leave_only(
        &self,
        keep_watcher: &dyn Fn(usize) -> bool,
        keep_call: &dyn Fn(&usize) -> bool,
    ) {
        let others: Vec<WatcherId> = self.watchers.with(|w| {
            let calls_by_itself = |spec: &Spec| {
                !matches!(
                    spec,
                    Spec::Signal { .. } | Spec::Fork | Spec::Async { .. } | Spec::Child(_)
                )
            };
            w.slab
                .iter()
                .filter(|(_, w)| calls_by_itself(&w.spec) && !keep_watcher(w.data))
                .map(|(key, _)| WatcherId(key))
                .collect()
        });
        others.into_iter().for_each(|id| self.stop(id));
        for key in self.ops.with(|o| o.keys()) {
            let _ = self.with_backend(|b| Ok(b.cancel(Class::Op.key(key))));
            self.ops.with(|o| o.remove(key));
        }
        self.sources.with(|s| s.forget_waiters());
        self.timers.with(|t| {
            for key in t.keys_where(|due| !is_watcher(due)) {
                t.stop(key);
            }
        });
        self.queue
            .retain(|entry| !matches!(entry, Entry::Call(word) if !keep_call(word)));
        self.refs.set(self.watchers.with(|w| w.count_refs()));
    }
}
