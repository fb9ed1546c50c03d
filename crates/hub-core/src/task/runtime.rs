//! [`Runtime`]: the scheduler on the thread's own stack, the fibers of its tasks, and its end.

use super::inbox::{Inbox, Spawner};
use super::join::{Body, Head, JoinError, JoinHandle, Task};
use crate::cell::LocalCell;
use crate::event_loop::{Key, Loop};
use crate::fiber::{Fiber, FiberKind, FiberState, Switcher};
use crate::hub::{Embedder, Hub};
use crate::reactor::{
    Entry, Nanos, Reactor, Revents, RunMode, Token, Wake, WatcherId, WatcherKind,
};
use crate::slab::Slab;
use crate::stack::{self, PooledStack};
use std::cell::Cell;
use std::io;
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

/// The payload of [`Entry::Call`] that means the inbox; all others are keys of tasks, and no key is 0.
pub(super) const INBOX: usize = 0;
/// Interruptions that an ending runtime offers a task.
const OFFERS: u32 = 1000;
/// How long an ending runtime waits for tasks that wait in spite of it.
const GRACE: Duration = Duration::from_secs(1);

thread_local! {
    static CURRENT: Cell<*const Shared> = const { Cell::new(ptr::null()) };
}

/// Calls `f` with the runtime that runs on this thread.
pub(super) fn with_current<R>(f: impl FnOnce(&Shared) -> R) -> R {
    let shared = CURRENT.get();
    assert!(
        !shared.is_null(),
        "a task can only be started inside a runtime"
    );
    // SAFETY: a pointer in CURRENT is taken out by `Entered`, whose runtime keeps the `Rc`.
    f(unsafe { &*shared })
}

/// What a runtime and the embedder of its hub share.
pub(super) struct Shared {
    me: Weak<Shared>,
    reactor: Rc<Reactor>,
    /// In a box of its own: the switcher points to it.
    root: Box<Fiber>,
    switcher: Switcher,
    tasks: LocalCell<Slab<Rc<dyn Body>>>,
    /// On its way to its first step, or from its last one to [`reaped`].
    passing: LocalCell<Option<Rc<dyn Body>>>,
    /// The task of `block_on`, until it is over.
    main: Cell<Option<Key>>,
    closing: Cell<bool>,
    inbox: Arc<Inbox>,
}

static KIND: FiberKind = FiberKind {
    run: run_task,
    reaped,
};

/// # Safety
/// Called by the switcher only, while a runtime runs in this thread.
unsafe fn run_task(_: &Fiber) -> *const Fiber {
    let shared = CURRENT.get();
    // SAFETY: a fiber runs only while its runtime does.
    let shared = unsafe { &*shared };
    if let Some(body) = shared.passing.take() {
        body.run();
        shared.finish(&*body);
        shared.passing.with(|p| *p = Some(body));
    }
    &*shared.root
}

/// # Safety
/// As [`run_task`], for a fiber of the runtime that has finished.
unsafe fn reaped(_: *const Fiber, stack: PooledStack) {
    stack::release(stack);
    // SAFETY: as in `run_task`.
    let shared = unsafe { &*CURRENT.get() };
    drop(shared.passing.take());
}

impl Shared {
    fn new(reactor: Rc<Reactor>) -> Rc<Self> {
        let root = Box::new(Fiber::root());
        Rc::new_cyclic(|me| Shared {
            me: me.clone(),
            reactor,
            // SAFETY: the box lives as long as the switcher, and `Runtime::enter` sees to it that the
            // scheduler is on the thread's stack.
            switcher: unsafe { Switcher::new(&*root) },
            root,
            tasks: LocalCell::default(),
            passing: LocalCell::default(),
            main: Cell::new(None),
            closing: Cell::new(false),
            inbox: Arc::new(Inbox::new()),
        })
    }

    pub(super) fn spawn<T: 'static>(
        &self,
        f: impl FnOnce() -> T + 'static,
        stack_size: Option<usize>,
    ) -> JoinHandle<T> {
        let task = Task::new(self.me.clone(), f, stack_size);
        self.tasks.with(|t| {
            let key = t.insert(task.clone());
            task.head().key.set(key);
        });
        self.enqueue(task.head());
        JoinHandle::new(task)
    }

    /// Has [`Embedder::call`] look at a task.
    pub(super) fn enqueue(&self, head: &Head) {
        if !head.queued.replace(true) {
            self.reactor.push(Entry::Call(head.key.get().0 as usize));
        }
    }

    fn live(&self) -> usize {
        self.tasks.with(|t| t.len())
    }

    /// A task is over.
    fn finish(&self, body: &dyn Body) {
        let key = body.head().key.get();
        body.head().finish();
        let body = self.tasks.with(|t| t.remove(key));
        drop(body);
        if self.main.get() == Some(key) {
            self.main.set(None);
        }
    }

    /// Goes on with a fiber; the scheduler does not move from the root.
    fn go(&self, fiber: *const Fiber) {
        // SAFETY: parks name only fibers that are parked, which are alive: a task stays in `tasks` until its
        // body has returned. The scheduler holds no borrow here.
        unsafe { self.switcher.transfer(fiber) };
    }

    fn begin(&self, body: Rc<dyn Body>) {
        let head = body.head();
        let stack = match head.stack_size {
            Some(size) => stack::acquire_sized(size),
            None => stack::acquire(),
        };
        match stack {
            Ok(stack) => {
                let fiber = fiber_of(head);
                // SAFETY: it is unstarted, and its `Rc` is kept until it is reaped.
                unsafe { head.fiber.prepare(stack, &KIND) };
                self.passing.with(|p| *p = Some(body));
                self.go(fiber);
            }
            Err(e) => self.refuse(&*body, JoinError::NoStack(e)),
        }
    }

    fn refuse(&self, body: &dyn Body, why: JoinError) {
        body.refuse(why);
        self.finish(body);
    }

    /// An entry of a task has come up.
    fn look_at(&self, key: Key) {
        let Some(body) = self.tasks.with(|t| t.get(key).cloned()) else {
            return;
        };
        let head = body.head();
        head.queued.set(false);
        let interrupted = head.interrupt.take() || self.closing.get();
        match (head.fiber.state(), interrupted) {
            (FiberState::Unstarted, false) => self.begin(body),
            (FiberState::Unstarted, true) => self.refuse(&*body, JoinError::Cancelled),
            (FiberState::Live, true) => self.go(fiber_of(head)),
            _ => {}
        }
    }
}

/// The name of a task's fiber, from which [`head_of`] finds the way back.
fn fiber_of(head: &Head) -> *const Fiber {
    ptr::from_ref(head).cast()
}

/// The task of a fiber.
///
/// # Safety
/// `fiber` was made by [`fiber_of`], and its task is alive.
unsafe fn head_of<'a>(fiber: *const Fiber) -> &'a Head {
    // SAFETY: the fiber is the first field of a `repr(C)` head.
    unsafe { &*fiber.cast::<Head>() }
}

/// The embedder: tasks on fibers, the scheduler on the thread's stack.
struct Tasks(Rc<Shared>);

/// Bytes of a parked stack that a resumed task returns through at once.
const NEAR: usize = 512;

impl Embedder for Tasks {
    #[inline]
    fn enter_hub(&self) {
        let shared = &self.0;
        let me = shared.switcher.current();
        assert!(
            !ptr::eq(me, &*shared.root),
            "the scheduler itself cannot wait: only tasks can"
        );
        // SAFETY: every fiber but the root is a task's, and this one runs.
        let head = unsafe { head_of(me) };
        if std::thread::panicking() {
            return;
        }
        if shared.closing.get() {
            // Its turn comes in the queue, so that the descriptors are looked at between two.
            if head.refused.get() < OFFERS {
                head.refused.set(head.refused.get() + 1);
                shared.enqueue(head);
            }
        } else if head.interrupt.take() {
            return;
        }
        shared.go(&*shared.root);
    }

    #[inline]
    fn resume(&self, fiber: *const Fiber) {
        self.0.go(fiber);
    }

    #[inline]
    fn expect(&self, fiber: *const Fiber, near: bool) {
        if near {
            // SAFETY: a task that is parked here is alive.
            unsafe { (*fiber).fetch_stack(NEAR) };
        } else {
            Fiber::fetch(fiber);
        }
    }

    #[inline]
    fn current(&self) -> *const Fiber {
        self.0.switcher.current()
    }

    fn call(&self, payload: usize) {
        if payload != INBOX {
            self.0.look_at(Key(payload as u64));
        } else if let Some(job) = self.0.inbox.pop() {
            drop(self.0.spawn(job, None));
        }
    }

    /// A watcher's word is the token of the park that it ends.
    fn fire(&self, _: WatcherId, data: usize, _: Revents) {
        Hub::with(|hub| hub.map(|hub| hub.unpark(Token(data as u64), Wake::Event)));
    }

    fn keep_running(&self) -> bool {
        if self.0.closing.get() {
            self.0.live() > 0
        } else {
            self.0.main.get().is_some()
        }
    }
}

/// A hub of this thread for Rust programs. See the [module's text](super).
///
/// Dropping it ends its tasks.
pub struct Runtime {
    /// In a box: parked fibers point to it.
    hub: Box<Hub>,
    shared: Rc<Shared>,
    grace: Cell<Duration>,
}

/// Makes a runtime on `backend`, runs `f` in it, and ends it.
///
/// # Errors
/// Of [`Runtime::new`].
///
/// # Panics
/// As [`Runtime::block_on`].
pub fn run<T: 'static>(backend: Box<dyn Loop>, f: impl FnOnce() -> T + 'static) -> io::Result<T> {
    Ok(Runtime::new(backend)?.block_on(f))
}

/// While this is alive, the runtime is the thread's.
struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(ptr::null());
        // SAFETY: there is none any more.
        unsafe { Hub::set_current(ptr::null()) };
    }
}

impl Runtime {
    /// A runtime on `backend`.
    ///
    /// # Errors
    /// What the reactor says.
    pub fn new(backend: Box<dyn Loop>) -> io::Result<Runtime> {
        Reactor::new(backend).map(Self::with_reactor)
    }

    /// A runtime on a reactor, which may be a fake one.
    pub fn with_reactor(reactor: Rc<Reactor>) -> Runtime {
        let shared = Shared::new(reactor.clone());
        Runtime {
            hub: Box::new(Hub::new(reactor, Box::new(Tasks(shared.clone())))),
            shared,
            grace: Cell::new(GRACE),
        }
    }

    /// Runs `f` as a task until it returns, and gives its result; the other tasks run meanwhile, and stay
    /// as they are afterwards. As with threads, tasks that all wait for each other wait for ever.
    ///
    /// # Panics
    /// With the panic of `f`, after the other tasks were ended; when called on a fiber, or on a thread that
    /// has a hub; and when the loop can no longer wait for events.
    pub fn block_on<T: 'static>(&self, f: impl FnOnce() -> T + 'static) -> T {
        let entered = self.enter();
        let handle = self.shared.spawn(f, None);
        self.shared.main.set(Some(handle.key()));
        self.shared.reactor.reference();
        while self.shared.main.get().is_some() {
            if let Err(e) = self.hub.run(RunMode::Default) {
                panic!("the event loop is unusable: {e}");
            }
        }
        self.shared.reactor.unreference();
        match handle.join() {
            Ok(value) => value,
            Err(JoinError::Panicked(payload)) => {
                self.end_tasks();
                drop(entered);
                std::panic::resume_unwind(payload)
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Starts a task, which begins at the next [`block_on`](Self::block_on).
    pub fn spawn<T: 'static>(&self, f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        self.shared.spawn(f, None)
    }

    /// A way to start tasks from other threads. The runtime hears of them while it is in
    /// [`block_on`](Self::block_on).
    pub fn spawner(&self) -> Spawner {
        Spawner {
            inbox: self.shared.inbox.clone(),
            remote: self.shared.reactor.remote(),
        }
    }

    /// The hub.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// How many tasks are not over.
    pub fn tasks(&self) -> usize {
        self.shared.live()
    }

    /// How long the end of the runtime waits for tasks that go on waiting; 1 second unless set.
    pub fn set_grace(&self, grace: Duration) {
        self.grace.set(grace);
    }

    fn enter(&self) -> Entered {
        assert!(
            Hub::current().is_null(),
            "a runtime cannot be entered on a thread that has a hub"
        );
        CURRENT.set(Rc::as_ptr(&self.shared));
        // SAFETY: the guard takes it back before `self` can go.
        unsafe { Hub::set_current(&*self.hub) };
        Entered
    }

    /// Interrupts tasks until none is left, or the grace is over.
    fn end_tasks(&self) {
        let shared = &self.shared;
        shared.closing.set(true);
        for key in shared.tasks.with(|t| t.keys()) {
            if let Some(body) = shared.tasks.with(|t| t.get(key).cloned()) {
                shared.enqueue(body.head());
            }
        }
        let reactor = &shared.reactor;
        let nanos = Nanos::try_from(self.grace.get().as_nanos()).unwrap_or(Nanos::MAX);
        let end = reactor.clock_now().saturating_add(nanos);
        reactor.update_now();
        let alarm = reactor.add(
            WatcherKind::Timer {
                after: nanos,
                repeat: 0,
            },
            0,
        );
        let armed = reactor.start(alarm).is_ok();
        while armed && shared.live() > 0 && reactor.clock_now() < end {
            if self.hub.run(RunMode::Once).is_err() {
                break;
            }
        }
        reactor.remove(alarm);
        // What is left now is never resumed, and neither its stack nor its head is freed.
        for key in shared.tasks.with(|t| t.keys()) {
            if let Some(body) = shared.tasks.with(|t| t.remove(key)) {
                std::mem::forget(body);
            }
        }
        shared.closing.set(false);
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.shared.inbox.close();
        if self.shared.live() == 0 {
            return;
        }
        if Hub::current().is_null() && !std::thread::panicking() {
            let _entered = self.enter();
            self.end_tasks();
        } else {
            // No place to run them in: see `end_tasks` for what becomes of them.
            for key in self.shared.tasks.with(|t| t.keys()) {
                std::mem::forget(self.shared.tasks.with(|t| t.remove(key)));
            }
        }
    }
}
