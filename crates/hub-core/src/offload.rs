//! The offload pool: a bounded number of OS threads for calls that can only block (files, `getaddrinfo`).
//!
//! A job's result comes back through a [`Remote`]: the token's wake goes to the queue of the loop that
//! waits. Threads are started when there is work and none is idle, and end after some idle time. In a
//! forked child the threads do not exist and the state of the parent's locks is unknown: there the pool
//! begins anew, and jobs from before the fork never finish.

use crate::hub::{Hub, Interrupted};
use crate::os;
use crate::reactor::{Entry, Remote, Token, Wake};
use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Threads of the [global](Pool::global) pool, as upstream's `GEVENT_THREADPOOL_SIZE` default.
pub const DEFAULT_THREADS: usize = 10;
/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);
/// The stack of a thread: enough for name service modules.
const STACK: usize = 1 << 20;

/// A pool of threads, shared by all loops of the process.
pub struct Pool {
    shared: AtomicPtr<Shared>,
    max: usize,
    idle: Duration,
}

/// What the threads of one process share.
struct Shared {
    pid: u32,
    state: Mutex<State>,
    changed: Condvar,
    idle: Duration,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Arc<dyn Work>>,
    threads: usize,
    waiting: usize,
    closed: bool,
}

trait Work: Send + Sync {
    /// Does the work, unless it was cancelled.
    fn perform(&self);
}

enum Stage<T> {
    Queued(Box<dyn FnOnce() -> T + Send>),
    Running,
    Done(thread::Result<T>),
    Over,
}

struct Slot<T> {
    stage: Mutex<Stage<T>>,
    remote: Arc<Remote>,
    token: Token,
}

/// A call that was given to the pool.
pub struct Job<T> {
    slot: Arc<Slot<T>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send> Work for Slot<T> {
    fn perform(&self) {
        let stage = {
            let mut stage = lock(&self.stage);
            match &*stage {
                Stage::Queued(_) => std::mem::replace(&mut *stage, Stage::Running),
                _ => return,
            }
        };
        if let Stage::Queued(work) = stage {
            let result = catch_unwind(AssertUnwindSafe(work));
            *lock(&self.stage) = Stage::Done(result);
            self.remote.push(Entry::Wake(self.token, Wake::Event));
        }
    }
}

impl<T> Job<T> {
    /// The result, once: `Err` is the payload of a panic. `None` while it is under way, and after it was
    /// taken. To be called when [`Wake::Event`] of the token has come.
    pub fn take(&self) -> Option<thread::Result<T>> {
        // After a fork the lock may be held for ever by a thread that does not exist here.
        let mut stage = self.slot.stage.try_lock().ok()?;
        match std::mem::replace(&mut *stage, Stage::Over) {
            Stage::Done(result) => Some(result),
            other => {
                *stage = other;
                None
            }
        }
    }

    /// Takes the job back if no thread has begun with it. `false`: it runs, and its result will be dropped
    /// unless it is taken.
    pub fn cancel(&self) -> bool {
        let Ok(mut stage) = self.slot.stage.try_lock() else {
            return false;
        };
        let queued = matches!(*stage, Stage::Queued(_));
        let dropped = if queued {
            std::mem::replace(&mut *stage, Stage::Over)
        } else {
            Stage::Over
        };
        drop(stage);
        drop(dropped);
        queued
    }
}

impl Pool {
    /// A pool of at most `max` threads (at least one), each of which ends after `idle` without work.
    pub const fn new(max: usize, idle: Duration) -> Pool {
        Pool {
            shared: AtomicPtr::new(ptr::null_mut()),
            max: if max == 0 { 1 } else { max },
            idle,
        }
    }

    /// The pool that the loops of the process use.
    pub fn global() -> &'static Pool {
        static GLOBAL: Pool = Pool::new(DEFAULT_THREADS, IDLE);
        &GLOBAL
    }

    /// How many threads there may be.
    pub fn max(&self) -> usize {
        self.max
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        lock(&self.shared().state).threads
    }

    /// Runs `work` on a thread of the pool; then [`Wake::Event`] of `token` goes to the loop of `remote`. The
    /// loop is not kept running by it: see [`Reactor::reference`](crate::reactor::Reactor::reference).
    ///
    /// # Errors
    /// `EAGAIN` of the system when there is no thread at all and none can be started.
    pub fn submit<T: Send + 'static>(
        &self,
        remote: Arc<Remote>,
        token: Token,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Job<T>> {
        let stage = Mutex::new(Stage::Queued(
            Box::new(work) as Box<dyn FnOnce() -> T + Send>
        ));
        let slot = Arc::new(Slot {
            stage,
            remote,
            token,
        });
        let shared = self.shared();
        let mut state = lock(&shared.state);
        state.queue.push_back(slot.clone());
        if state.waiting >= state.queue.len() {
            drop(state);
            shared.changed.notify_one();
        } else if state.threads < self.max() {
            state.threads += 1;
            drop(state);
            let begun = os::start_thread("gevent-offload", STACK, move || work_off(shared));
            if let Err(e) = begun {
                let mut state = lock(&shared.state);
                state.threads -= 1;
                if state.threads == 0 {
                    // By now another thread's work may be behind this.
                    let ours = Arc::as_ptr(&slot);
                    state
                        .queue
                        .retain(|work| !std::ptr::addr_eq(Arc::as_ptr(work), ours));
                    return Err(e);
                }
            }
        }
        Ok(Job { slot })
    }

    /// Runs `work` on a thread of the pool while the calling fiber is parked.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call<T: Send + 'static>(
        &self,
        hub: &Hub,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CallError> {
        let park = hub.prepare();
        let reactor = hub.reactor();
        let job = self
            .submit(reactor.remote(), park.token(), work)
            .map_err(CallError::NoThread)?;
        reactor.reference();
        let waited = park.wait(None);
        reactor.unreference();
        if let Err(interrupted) = waited {
            job.cancel();
            return Err(CallError::Interrupted(interrupted));
        }
        match job.take() {
            Some(Ok(value)) => Ok(value),
            Some(Err(payload)) => Err(CallError::Panicked(payload)),
            None => Err(CallError::Interrupted(Interrupted { granted: None })),
        }
    }

    /// The state of this process: made at the first use, and again in a forked child.
    fn shared(&self) -> &'static Shared {
        let pid = std::process::id();
        loop {
            let old = self.shared.load(Ordering::Acquire);
            // SAFETY: what was stored was leaked.
            if let Some(shared) = unsafe { old.as_ref() }.filter(|s| s.pid == pid) {
                return shared;
            }
            let new = Box::into_raw(Box::new(Shared {
                pid,
                state: Mutex::default(),
                changed: Condvar::new(),
                idle: self.idle,
            }));
            match self
                .shared
                .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
            {
                // The parent's is left to leak: one of its locks may be held.
                // SAFETY: leaked from now on.
                Ok(_) => return unsafe { &*new },
                // SAFETY: nobody else has seen it.
                Err(_) => drop(unsafe { Box::from_raw(new) }),
            }
        }
    }
}

impl Drop for Pool {
    /// Threads end when they are idle; queued jobs are still done.
    fn drop(&mut self) {
        let shared = *self.shared.get_mut();
        // SAFETY: what was stored was leaked.
        if let Some(shared) = unsafe { shared.as_ref() }.filter(|s| s.pid == std::process::id()) {
            lock(&shared.state).closed = true;
            shared.changed.notify_all();
        }
    }
}

fn work_off(shared: &Shared) {
    let mut state = lock(&shared.state);
    loop {
        if let Some(work) = state.queue.pop_front() {
            drop(state);
            work.perform();
            drop(work);
            state = lock(&shared.state);
        } else if state.closed {
            break;
        } else {
            state.waiting += 1;
            let waited = shared.changed.wait_timeout(state, shared.idle);
            let (back, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.waiting -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                break;
            }
        }
    }
    state.threads -= 1;
}

/// Why [`Pool::call`] has no result.
#[derive(Debug)]
pub enum CallError {
    /// The fiber was interrupted; the work may still be done.
    Interrupted(Interrupted),
    /// The work panicked with this payload.
    Panicked(Box<dyn Any + Send>),
    /// There is no thread, and none could be started.
    NoThread(io::Error),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::Interrupted(i) => i.fmt(f),
            CallError::Panicked(_) => f.write_str("the offloaded call panicked"),
            CallError::NoThread(e) => write!(f, "no thread for a blocking call: {e}"),
        }
    }
}

impl std::error::Error for CallError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::{Host, Reactor, Revents, RunMode, WatcherId};
    use crate::sim::Sim;
    use std::cell::RefCell;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    #[derive(Default)]
    struct Log(RefCell<Vec<u64>>);

    impl Host for Log {
        fn fire(&self, _: WatcherId, _: usize, _: Revents) {}
        fn run_entry(&self, entry: Entry) {
            if let Entry::Wake(token, Wake::Event) = entry {
                self.0.borrow_mut().push(token.0);
            }
        }
        fn before_sleep(&self) {}
        fn after_sleep(&self) {}
    }

    /// Runs until `n` wakes have come.
    fn woken(r: &Reactor, n: usize) -> Vec<u64> {
        let log = Log::default();
        r.reference();
        while log.0.borrow().len() < n {
            r.run(&log, RunMode::Once).unwrap();
        }
        r.unreference();
        let mut all = log.0.into_inner();
        all.sort_unstable();
        all
    }

    #[test]
    fn results_come_back_through_the_queue() {
        let r = Reactor::for_tests(&Sim::new());
        let pool = Pool::new(3, IDLE);
        let jobs: Vec<_> = (1..=20)
            .map(|n| pool.submit(r.remote(), Token(n), move || n * n).unwrap())
            .collect();
        assert_eq!(woken(&r, 20), (1..=20).collect::<Vec<_>>());
        let squares: Vec<_> = jobs.iter().map(|j| j.take().unwrap().unwrap()).collect();
        assert_eq!(squares, (1..=20).map(|n| n * n).collect::<Vec<_>>());
        assert!(jobs[0].take().is_none());
        assert!((1..=3).contains(&pool.threads()));
    }

    #[test]
    fn a_panic_is_a_result_and_the_thread_goes_on() {
        let r = Reactor::for_tests(&Sim::new());
        let pool = Pool::new(1, IDLE);
        let bad = pool
            .submit(r.remote(), Token(1), || -> u8 {
                std::panic::panic_any("no")
            })
            .unwrap();
        let good = pool.submit(r.remote(), Token(2), || 7u8).unwrap();
        assert_eq!(woken(&r, 2), [1, 2]);
        assert_eq!(bad.take().unwrap().unwrap_err().downcast_ref(), Some(&"no"));
        assert_eq!(good.take().unwrap().unwrap(), 7);
        assert_eq!(pool.threads(), 1);
    }

    #[test]
    fn a_queued_job_can_be_taken_back_and_a_running_one_not() {
        let r = Reactor::for_tests(&Sim::new());
        let pool = Pool::new(1, IDLE);
        let (go, wait) = mpsc::channel::<()>();
        let (begun, began) = mpsc::channel();
        let first = pool
            .submit(r.remote(), Token(1), move || {
                begun.send(()).unwrap();
                wait.recv().unwrap();
            })
            .unwrap();
        let ran = Arc::new(AtomicBool::new(false));
        let flag = ran.clone();
        let second = pool
            .submit(r.remote(), Token(2), move || {
                flag.store(true, Ordering::SeqCst)
            })
            .unwrap();
        began.recv().unwrap();
        assert!(!first.cancel());
        assert!(second.cancel() && !second.cancel());
        assert_eq!(Arc::strong_count(&ran), 1, "the closure is dropped at once");
        go.send(()).unwrap();
        assert_eq!(woken(&r, 1), [1]);
        assert!(second.take().is_none() && !ran.load(Ordering::SeqCst));
    }

    #[test]
    fn idle_threads_end_and_new_ones_start() {
        let r = Reactor::for_tests(&Sim::new());
        let pool = Pool::new(4, Duration::from_millis(5));
        for round in 1..=2 {
            pool.submit(r.remote(), Token(round), || ()).unwrap();
            assert_eq!(woken(&r, 1), [round]);
            while pool.threads() != 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn a_result_for_a_loop_that_is_gone_is_dropped() {
        let r = Reactor::for_tests(&Sim::new());
        let pool = Pool::new(1, IDLE);
        let remote = r.remote();
        drop(r);
        let job = pool.submit(remote, Token(1), || 1).unwrap();
        let value = loop {
            match job.take() {
                Some(v) => break v.unwrap(),
                None => thread::yield_now(),
            }
        };
        assert_eq!(value, 1);
    }

    fn in_task<T: 'static>(f: impl FnOnce() -> T + 'static) -> T {
        crate::task::Runtime::with_reactor(Reactor::for_tests(&Sim::new())).block_on(f)
    }

    fn call<T: Send + 'static>(
        pool: &Pool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CallError> {
        Hub::with(|hub| pool.call(hub.expect("a task has a hub"), work))
    }

    #[test]
    fn a_fiber_waits_for_its_call_while_others_run() {
        let others = in_task(|| {
            let pool = Pool::new(2, IDLE);
            let (go, wait) = mpsc::channel();
            let other = crate::task::spawn(move || go.send(21u32).is_ok());
            let value = call(&pool, move || wait.recv().map(|n| n * 2));
            assert_eq!(value.unwrap(), Ok(42));
            let panic = call(&pool, || -> u8 { std::panic::panic_any(5i32) });
            assert!(
                matches!(panic, Err(CallError::Panicked(p)) if p.downcast_ref() == Some(&5i32))
            );
            other.join()
        });
        assert!(matches!(others, Ok(true)));
    }

    #[test]
    fn an_interrupted_fiber_leaves_its_call_behind() {
        in_task(|| {
            let (go, wait) = mpsc::channel::<()>();
            let (begun, began) = mpsc::channel();
            let waiting = crate::task::spawn(move || {
                let pool = Pool::new(1, IDLE);
                let work = move || {
                    begun.send(()).unwrap();
                    wait.recv().is_ok()
                };
                matches!(call(&pool, work), Err(CallError::Interrupted(_)))
            });
            while began.try_recv().is_err() {
                crate::task::sleep(Duration::ZERO).unwrap();
            }
            waiting.interrupt();
            assert!(matches!(waiting.join(), Ok(true)));
            go.send(()).unwrap();
        });
    }
}
