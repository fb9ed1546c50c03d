//! Fibers: stackful coroutines that switch symmetrically on corosensei's asymmetric stacks.
//!
//! corosensei offers `resume` (upwards) and `suspend` (back to the resumer). [`Switcher::transfer`] makes
//! "go to that fiber, wherever it is" of the two: a target that is not in the chain of resumers below the
//! running fiber is resumed on top of it; for one that is, or for the thread's own stack, the running
//! fiber suspends and leaves the target's name for whoever resumed it. Each resume is matched by at most
//! one suspend, so this is never dearer than a trampoline on the thread's stack, and a hub and its fibers
//! switch with half of that. Past [`MAX_CHAIN`] resumers it falls back to the trampoline.
//!
//! What is not here: who runs next (`hub`), and what a fiber carries besides its stack (the embedder).

use crate::stack::PooledStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr;

/// Resumers in one chain before switches go through its bottom.
pub const MAX_CHAIN: u32 = 64;

/// What a fiber of some kind does; one constant for each kind.
pub struct FiberKind {
    /// The body, on the fiber's own stack. Returns the fiber to go on with. It must not unwind.
    pub run: unsafe fn(&Fiber) -> *const Fiber,
    /// Called on the resumer's stack, once, when `run` has returned, with the stack that is free now.
    /// It must not switch and must not unwind. The fiber may be freed by it.
    pub reaped: unsafe fn(*const Fiber, PooledStack),
}

/// Where a fiber is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FiberState {
    /// It has no stack yet.
    Unstarted,
    /// It is a thread's own stack.
    Root,
    /// It has a stack: it runs, or is parked.
    Live,
    /// Its body has returned, or it was abandoned.
    Finished,
}

type Co = Coroutine<(), (), *const Fiber, PooledStack>;

/// The control block of a fiber, meant to be embedded in the embedder's own object and pinned there.
///
/// Dropping it never unwinds the fiber's stack: a live one must be finished or [abandoned](Fiber::abandon).
pub struct Fiber {
    co: UnsafeCell<Option<ManuallyDrop<Co>>>,
    yielder: Cell<*const Yielder<(), ()>>,
    resumer: Cell<*const Fiber>,
    chain: Cell<u32>,
    state: Cell<FiberState>,
    stack_span: Cell<(usize, usize)>,
    parked_at: Cell<usize>,
    _not_send: PhantomData<*const ()>,
}

impl Default for Fiber {
    fn default() -> Self {
        Self::new()
    }
}

impl Fiber {
    /// A fiber without a stack.
    pub const fn new() -> Self {
        Self::with_state(FiberState::Unstarted)
    }

    /// The fiber that stands for the calling thread's own stack.
    pub const fn root() -> Self {
        Self::with_state(FiberState::Root)
    }

    const fn with_state(state: FiberState) -> Self {
        Fiber {
            co: UnsafeCell::new(None),
            yielder: Cell::new(ptr::null()),
            resumer: Cell::new(ptr::null()),
            chain: Cell::new(0),
            state: Cell::new(state),
            stack_span: Cell::new((0, 0)),
            parked_at: Cell::new(0),
            _not_send: PhantomData,
        }
    }

    /// Where it is in its life.
    pub fn state(&self) -> FiberState {
        self.state.get()
    }

    /// The addresses of its C stack, lowest and one past the highest; zeros without one.
    pub fn stack_span(&self) -> (usize, usize) {
        self.stack_span.get()
    }

    /// An address in the frame from which it transferred last: where its stack ended then, but for that
    /// frame. 0 before.
    #[inline]
    pub fn parked_at(&self) -> usize {
        self.parked_at.get()
    }

    /// Starts to fetch the control block itself into the caches; it may dangle.
    #[inline]
    pub fn fetch(fiber: *const Fiber) {
        fetch(fiber.cast(), size_of::<Fiber>());
    }

    /// Starts to fetch the end of its stack that a resume returns through, up to `len` bytes.
    #[inline]
    pub fn fetch_stack(&self, len: usize) {
        let (at, end) = (self.parked_at.get(), self.stack_span.get().1);
        // The frame of the switch is below.
        let from = at.saturating_sub(FRAME);
        if at != 0 && from < end {
            fetch(ptr::without_provenance(from), len.min(end - from));
        }
    }

    /// Gives it a stack; it runs from its first [`Switcher::transfer`] on.
    ///
    /// # Safety
    /// The fiber is `Unstarted` and stays at this address until it is finished.
    pub unsafe fn prepare(&self, stack: PooledStack, kind: &'static FiberKind) {
        debug_assert_eq!(self.state.get(), FiberState::Unstarted);
        self.stack_span.set((stack.limit_addr(), stack.base_addr()));
        let me: *const Fiber = self;
        let co = Co::with_stack(stack, move |yielder, ()| {
            // SAFETY: the fiber outlives its run, by the caller's promise.
            let me = unsafe { &*me };
            me.yielder.set(yielder);
            // SAFETY: as `FiberKind::run` asks: on the fiber's own stack, once.
            let next = unsafe { (kind.run)(me) };
            me.state.set(FiberState::Finished);
            // `reaped` needs the kind, which only this closure knows.
            me.yielder.set(ptr::from_ref(kind).cast());
            next
        });
        // SAFETY: nothing else looks at `co` before the first resume.
        unsafe { *self.co.get() = Some(ManuallyDrop::new(co)) };
        self.state.set(FiberState::Live);
    }

    /// Gives up a parked fiber without running it again, and returns its stack, whose frames are
    /// forgotten: nothing on it is dropped.
    ///
    /// # Safety
    /// It is `Live`, parked, and will never be a target again; nobody needs what lies on its stack.
    pub unsafe fn abandon(&self) -> Option<PooledStack> {
        self.state.set(FiberState::Finished);
        self.stack_span.set((0, 0));
        // SAFETY: parked, so no `&mut` to the coroutine is alive.
        let co = unsafe { (*self.co.get()).take() };
        co.map(|co| {
            let mut co = ManuallyDrop::into_inner(co);
            // SAFETY: the caller's promise.
            unsafe { co.force_reset() };
            co.into_stack()
        })
    }
}

/// About what a transfer puts on the stack itself, in bytes.
const FRAME: usize = 128;

/// A hint to fetch memory that will be used soon; it never faults.
#[inline]
pub fn fetch(at: *const u8, len: usize) {
    const LINE: usize = 64;
    let first = at.addr() & !(LINE - 1);
    for line in (first..at.addr() + len).step_by(LINE) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no effect but on the caches, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(ptr::without_provenance(line));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, readonly, preserves_flags));
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = line;
    }
}

/// The switching state of one thread.
pub struct Switcher {
    current: Cell<*const Fiber>,
    target: Cell<*const Fiber>,
    switches: Cell<u64>,
}

impl Switcher {
    /// For a thread whose own stack is `root`.
    ///
    /// # Safety
    /// `root` is a [`Fiber::root`] that outlives the switcher, and the caller runs on the thread's stack.
    pub const unsafe fn new(root: *const Fiber) -> Self {
        Switcher {
            current: Cell::new(root),
            target: Cell::new(ptr::null()),
            switches: Cell::new(0),
        }
    }

    /// The running fiber.
    #[inline]
    pub fn current(&self) -> *const Fiber {
        self.current.get()
    }

    /// How many transfers there were.
    pub fn switches(&self) -> u64 {
        self.switches.get()
    }

    /// Goes on with `to`, and returns when somebody transfers back to the fiber that called this.
    ///
    /// # Safety
    /// `to` is `Live` or the thread's root, belongs to this thread, and stays alive while it is parked
    /// or running. No lock, borrow or detached interpreter scope is held that `to` could need.
    // Always: else it hangs on how the caller's crate is cut into units, and a call is a tenth of a switch.
    #[inline(always)]
    pub unsafe fn transfer(&self, to: *const Fiber) {
        let me = self.current.get();
        if me == to {
            return;
        }
        self.switches.set(self.switches.get() + 1);
        let here = 0u8;
        // SAFETY: `me` is running, hence alive.
        unsafe { (*me).parked_at.set((&raw const here).addr()) };
        // SAFETY: `me` is running, hence alive; `to` by the caller's promise.
        unsafe { self.go(&*me, to) }
        self.current.set(me);
    }

    /// # Safety
    /// As [`transfer`](Self::transfer); `me` is the running fiber.
    #[inline(always)]
    unsafe fn go(&self, me: &Fiber, mut to: *const Fiber) {
        loop {
            // SAFETY: targets are alive, by the promise of each `transfer` that named them.
            let t = unsafe { &*to };
            if t.state.get() == FiberState::Root
                || !t.resumer.get().is_null()
                || me.chain.get() >= MAX_CHAIN
            {
                self.target.set(to);
                me.resumer.set(ptr::null());
                // SAFETY: `me` is a running coroutine (a root never gets here: no fiber has a resumer
                // while it runs, its own chain is 0, and it is not its own target), so its yielder is alive.
                unsafe { (*me.yielder.get()).suspend(()) };
                return;
            }
            t.resumer.set(me);
            t.chain.set(me.chain.get() + 1);
            self.current.set(to);
            // SAFETY: `t` is not in the chain, so no other reference to its coroutine is alive.
            let co = unsafe { (*t.co.get()).as_mut().unwrap_unchecked() };
            match co.resume(()) {
                CoroutineResult::Yield(()) => to = self.target.get(),
                CoroutineResult::Return(next) => {
                    // SAFETY: it has returned; `run`'s closure left its kind in `yielder`.
                    unsafe {
                        let kind = &*t.yielder.get().cast::<FiberKind>();
                        let co = (*t.co.get()).take().unwrap_unchecked();
                        t.resumer.set(ptr::null());
                        t.stack_span.set((0, 0));
                        let stack = ManuallyDrop::into_inner(co).into_stack();
                        (kind.reaped)(to, stack);
                    }
                    to = next;
                }
            }
            if ptr::eq(to, me) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack;
    use std::rc::Rc;

    struct Job {
        fiber: Fiber,
        body: Box<dyn Fn() -> *const Fiber>,
    }

    /// # Safety
    /// As the switcher calls it.
    unsafe fn run(f: &Fiber) -> *const Fiber {
        // SAFETY: `fiber` is the first field of a `Job` (repr is irrelevant: offset_of is used).
        let job = unsafe {
            &*ptr::from_ref(f)
                .byte_sub(std::mem::offset_of!(Job, fiber))
                .cast::<Job>()
        };
        (job.body)()
    }

    /// # Safety
    /// As the switcher calls it.
    unsafe fn reaped(_: *const Fiber, s: PooledStack) {
        stack::release(s);
    }

    static KIND: FiberKind = FiberKind { run, reaped };

    fn job(body: impl Fn() -> *const Fiber + 'static) -> Box<Job> {
        let j = Box::new(Job {
            fiber: Fiber::new(),
            body: Box::new(body),
        });
        // SAFETY: boxed, and each test runs its jobs to their end.
        unsafe { j.fiber.prepare(stack::acquire().unwrap(), &KIND) };
        j
    }

    #[test]
    fn a_ring_of_first_switches_longer_than_the_chain_limit_comes_home() {
        let root = Box::leak(Box::new(Fiber::root()));
        let root: *const Fiber = root;
        // SAFETY: leaked, and this is the thread's stack.
        let sw: &'static Switcher = Box::leak(Box::new(unsafe { Switcher::new(root) }));
        let n = 3 * MAX_CHAIN as usize;
        let fibers: Rc<std::cell::RefCell<Vec<Box<Job>>>> = Rc::default();
        let log: Rc<Cell<usize>> = Rc::default();
        for i in 0..n {
            let (all, log) = (fibers.clone(), log.clone());
            fibers.borrow_mut().push(job(move || {
                let next: *const Fiber = if i + 1 < n {
                    &all.borrow()[i + 1].fiber
                } else {
                    root
                };
                for _ in 0..3 {
                    log.set(log.get() + 1);
                    // SAFETY: all live until the end of the test.
                    unsafe { sw.transfer(next) };
                }
                root
            }));
        }
        let first: *const Fiber = &fibers.borrow()[0].fiber;
        for _ in 0..3 {
            // SAFETY: live.
            unsafe { sw.transfer(first) };
        }
        assert_eq!(log.get(), 3 * n);
        for i in 0..n {
            let f: *const Fiber = &fibers.borrow()[i].fiber;
            // SAFETY: parked after its third transfer; it returns to the root.
            unsafe { sw.transfer(f) };
            assert_eq!(fibers.borrow()[i].fiber.state(), FiberState::Finished);
        }
        assert!(ptr::eq(sw.current(), root));
    }
}
