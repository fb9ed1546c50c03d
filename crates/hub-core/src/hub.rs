//! The hub: parks fibers and wakes them, on one thread.
//!
//! Everything that blocks is built of three calls. [`Hub::prepare`] names the coming park; the name (a
//! [`Token`]) goes to whoever shall end it; [`Park::wait`] parks. [`Hub::unpark`] ends a park with a small
//! reason. A token carries a generation, so a wake that comes too late is dropped. Where a wake also *grants*
//! something (a permit, an item), a throw that overtakes it hands it back: see [`Interrupted::granted`].
//!
//! The hub does not know how fibers are switched or what else runs in its queue: that is the
//! [`Embedder`]'s part. [`crate::task`] is the embedder of Rust programs.

use crate::cell::LocalCell;
use crate::fiber::Fiber;
use crate::reactor::{Entry, Host, Nanos, Reactor, Revents, RunMode, Token, Wake, WatcherId};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::ptr;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};

/// What the hub leaves to the program that it serves.
pub trait Embedder {
    /// The running fiber gives way to the hub; returns when something goes on with that fiber.
    fn enter_hub(&self);
    /// Called by the scheduler: goes on with `fiber`, and returns when control is back at the hub.
    fn resume(&self, fiber: *const Fiber);
    /// `fiber` is about to be resumed: next if `near`, else after that. A thread with many fibers gains if
    /// their memory is fetched in time.
    fn expect(&self, _fiber: *const Fiber, _near: bool) {}
    /// The running fiber.
    fn current(&self) -> *const Fiber;
    /// Whether something was thrown into the running fiber together with the wake that ended its park. Asked
    /// where code that knows nothing of the embedder is about to go on.
    fn was_overtaken(&self) -> bool {
        false
    }
    /// Runs a payload of [`Entry::Call`].
    fn call(&self, payload: usize);
    /// A watcher's callback is due.
    fn fire(&self, id: WatcherId, data: usize, revents: Revents);
    /// How long a poll may sleep before `last_look` is called.
    fn patience(&self) -> Nanos {
        Nanos::MAX
    }
    /// The last moment before a poll that may sleep for long to do what must not wait for its end.
    fn last_look(&self) {}
    /// Before a poll that may sleep.
    fn before_sleep(&self) {}
    /// After a poll that may have slept.
    fn after_sleep(&self) {}
    /// Once an iteration, after the poll.
    fn tick(&self) {}
    /// Whether the run goes on.
    fn keep_running(&self) -> bool {
        true
    }
}

/// Serves many descriptors without a fiber for each: it is called for the wakes of tokens that name no park
/// but something of its own.
pub trait Attendant {
    /// A wake for what `index` and `generation` name, on the hub's fiber; the hub holds no borrow meanwhile.
    fn attend(&self, index: u32, generation: u32, reason: Wake);
}

/// Names an attendant of one hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttendantId(u32);

/// Set in the index of a token that is an attendant's.
const ATTENDED: u32 = 1 << 31;
/// Where the attendant's number is in such an index.
const ATTENDANT_SHIFT: u32 = 19;
/// How many attendants a hub can have.
pub const ATTENDANTS: usize = (1 << (31 - ATTENDANT_SHIFT)) - 1;
/// How many indices an attendant can tell apart.
pub const ATTENDED_INDICES: u32 = 1 << ATTENDANT_SHIFT;

impl AttendantId {
    /// Names no attendant: its tokens wake nothing.
    pub const NOBODY: AttendantId = AttendantId(ATTENDANTS as u32);

    /// The token of something of the attendant's: to be waited with for sources and deadlines, and to be put
    /// into the queue. `index` is below [`ATTENDED_INDICES`], `generation` is not 0.
    #[inline]
    pub fn token(self, index: u32, generation: u32) -> Token {
        debug_assert!(index < ATTENDED_INDICES);
        Token::new(ATTENDED | self.0 << ATTENDANT_SHIFT | index, generation)
    }
}

/// A park ended by something other than a wake: the embedder switched or threw into the fiber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted {
    /// The reason of a wake that was queued but overtaken. Whoever granted something with it takes it back.
    pub granted: Option<Wake>,
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the park was interrupted")
    }
}

impl std::error::Error for Interrupted {}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Parked,
    /// A wake with this reason is in the queue.
    Granted(Wake),
    /// The scheduler goes on with the fiber for this reason.
    Delivered(Wake),
    /// Somebody asked for [`Interrupted`].
    Interrupting,
}

struct Slot {
    generation: u32,
    state: State,
    fiber: *const Fiber,
}

/// The parks of one thread, over one [`Reactor`].
pub struct Hub {
    id: u64,
    reactor: Rc<Reactor>,
    embedder: Box<dyn Embedder>,
    slots: LocalCell<Slots>,
    attendants: LocalCell<Attendants>,
    wakes: Cell<u64>,
}

impl Slot {
    /// Ends the park: its token names nothing any more.
    #[inline]
    fn forget(&mut self) {
        self.state = State::Free;
        self.fiber = ptr::null();
        // Generation 0 is never given out, so that no token is 0.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
    }
}

#[derive(Default)]
struct Attendants {
    all: Vec<Option<Weak<dyn Attendant>>>,
    /// Given back, oldest first, and used again only when all numbers were in use once: a wake that is still
    /// on its way for the last owner then reaches nobody.
    free: VecDeque<u32>,
}

impl Attendants {
    fn insert(&mut self, attendant: Weak<dyn Attendant>) -> Option<AttendantId> {
        if self.all.len() < ATTENDANTS {
            self.all.push(Some(attendant));
            return Some(AttendantId(self.all.len() as u32 - 1));
        }
        let id = self.free.pop_front()?;
        self.all[id as usize] = Some(attendant);
        Some(AttendantId(id))
    }

    fn remove(&mut self, id: AttendantId) {
        if let Some(slot) = self.all.get_mut(id.0 as usize)
            && slot.take().is_some()
        {
            self.free.push_back(id.0);
        }
    }
}

struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slots {
    #[inline]
    fn of(&mut self, token: Token) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(token.index() as usize)?;
        (slot.generation == token.generation()).then_some(slot)
    }
}

/// The id of the next hub; 0 is never one.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static CURRENT: Cell<*const Hub> = const { Cell::new(ptr::null()) };
}

impl Hub {
    /// A hub over `reactor`, served by `embedder`.
    pub fn new(reactor: Rc<Reactor>, embedder: Box<dyn Embedder>) -> Self {
        Hub {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            reactor,
            embedder,
            slots: LocalCell::new(Slots {
                slots: Vec::new(),
                free: Vec::new(),
            }),
            attendants: LocalCell::default(),
            wakes: Cell::new(0),
        }
    }

    /// Gives `attendant` tokens of its own; `None` when there are [`ATTENDANTS`] already.
    pub fn attend(&self, attendant: Weak<dyn Attendant>) -> Option<AttendantId> {
        self.attendants.with(|all| all.insert(attendant))
    }

    /// Forgets an attendant: its tokens wake nothing any more.
    pub fn dismiss(&self, id: AttendantId) {
        self.attendants.with(|all| all.remove(id));
    }

    fn pass_on(&self, token: Token, reason: Wake) {
        let index = token.index() & !ATTENDED;
        let attendant = self.attendants.with(|all| {
            let slot = all.all.get((index >> ATTENDANT_SHIFT) as usize)?;
            slot.as_ref()?.upgrade()
        });
        if let Some(attendant) = attendant {
            let own = index & (ATTENDED_INDICES - 1);
            attendant.attend(own, token.generation(), reason);
        }
    }

    /// Makes this hub (or none) the one that [`Hub::with`] finds on this thread.
    ///
    /// # Safety
    /// The hub outlives its registration.
    pub unsafe fn set_current(hub: *const Hub) {
        CURRENT.set(hub);
    }

    /// The thread's hub.
    pub fn current() -> *const Hub {
        CURRENT.get()
    }

    /// Calls `f` with the thread's hub, if it has one.
    pub fn with<R>(f: impl FnOnce(Option<&Hub>) -> R) -> R {
        // SAFETY: `set_current`'s promise.
        f(unsafe { CURRENT.get().as_ref() })
    }

    /// A number that no other hub of the process has or had: for those who keep a hub's names, and have to
    /// tell whether they are still at home.
    #[inline]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The fiber that runs: a name for whoever has to tell owners apart.
    #[inline]
    pub fn current_fiber(&self) -> *const Fiber {
        self.embedder.current()
    }

    /// See [`Embedder::was_overtaken`].
    pub fn was_overtaken(&self) -> bool {
        self.embedder.was_overtaken()
    }

    /// The reactor under it.
    pub fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }

    /// How many fibers are parked by [`Park::wait`] now.
    pub fn parked(&self) -> usize {
        self.slots.with(|s| s.slots.len() - s.free.len())
    }

    /// How many parks were ended by a wake.
    pub fn wakes(&self) -> u64 {
        self.wakes.get()
    }

    /// Names the running fiber's next park.
    #[inline]
    pub fn prepare(&self) -> Park<'_> {
        let fiber = self.embedder.current();
        let token = self.slots.with(|s| {
            let index = s.free.pop().unwrap_or_else(|| {
                s.slots.push(Slot {
                    generation: 1,
                    state: State::Free,
                    fiber: ptr::null(),
                });
                u32::try_from(s.slots.len() - 1).expect("fewer than 2^32 parked fibers")
            });
            let slot = &mut s.slots[index as usize];
            slot.state = State::Parked;
            slot.fiber = fiber;
            Token::new(index, slot.generation)
        });
        Park {
            hub: self,
            token,
            _here: PhantomData,
        }
    }

    /// Ends the park of `token` with `reason`. False if it is over, or has a wake in the queue already:
    /// then nothing was granted.
    #[inline]
    pub fn unpark(&self, token: Token, reason: Wake) -> bool {
        let fresh = self.slots.with(|s| match s.of(token) {
            Some(slot) if slot.state == State::Parked => {
                slot.state = State::Granted(reason);
                true
            }
            _ => false,
        });
        if fresh {
            self.reactor.push(Entry::Wake(token, Wake::Granted));
        }
        fresh
    }

    /// Ends the park of `token` with [`Interrupted`]; a wake that was queued is overtaken. False if the
    /// park is over.
    pub fn interrupt(&self, token: Token) -> bool {
        let found = self.slots.with(|s| match s.of(token) {
            Some(slot) if slot.state == State::Parked => {
                slot.state = State::Interrupting;
                true
            }
            _ => false,
        });
        if found {
            self.reactor.push(Entry::Wake(token, Wake::Granted));
        }
        found
    }

    /// In a forked child: the running fiber alone goes on. All other parks are over, for good: nothing wakes
    /// them, and their fibers, with all that they hold, stay as they are. See [`Reactor::leave_only`].
    pub fn leave_only_current(
        &self,
        keep_watcher: &dyn Fn(usize) -> bool,
        keep_call: &dyn Fn(&usize) -> bool,
    ) {
        let current = self.embedder.current();
        self.slots.with(|s| {
            for (index, slot) in s.slots.iter_mut().enumerate() {
                if slot.state != State::Free && slot.fiber != current {
                    slot.forget();
                    s.free.push(index as u32);
                }
            }
        });
        self.reactor.leave_only(keep_watcher, keep_call);
    }

    /// Lets every other runnable fiber have its turn.
    ///
    /// # Errors
    /// [`Interrupted`], as any park.
    #[inline]
    pub fn yield_now(&self) -> Result<(), Interrupted> {
        let park = self.prepare();
        self.unpark(park.token(), Wake::Event);
        park.wait_always(None).map(drop)
    }

    /// Parks until `deadline`.
    ///
    /// # Errors
    /// [`Interrupted`], as any park.
    pub fn sleep_until(&self, deadline: Nanos) -> Result<(), Interrupted> {
        let park = self.prepare();
        let timer = self.reactor.arm_sleep(deadline, park.token(), true);
        let woken = park.wait(None);
        self.reactor.disarm(timer);
        woken.map(drop)
    }

    /// The scheduler: runs the reactor and goes on with whatever becomes runnable, until nothing is left.
    /// Called on the hub's fiber. True if something that counts is still active.
    ///
    /// # Errors
    /// Of the backend's poll.
    pub fn run(&self, mode: RunMode) -> io::Result<bool> {
        self.reactor.run(self, mode)
    }

    /// Ends the park of `token` and goes on with its fiber at once, before anything else that is queued;
    /// returns when control comes back. Only for what the scheduler runs: the last act of a callback that
    /// somebody waits for, or the links of an event. If the park is over it does nothing.
    #[inline]
    pub fn hand_over(&self, token: Token, reason: Wake) {
        self.deliver(token, reason);
    }

    #[inline]
    fn deliver(&self, token: Token, reason: Wake) {
        if token.index() & ATTENDED != 0 {
            return self.pass_on(token, reason);
        }
        let fiber = self.slots.with(|s| {
            let slot = s.of(token)?;
            slot.state = match (slot.state, reason) {
                (State::Granted(granted), _) => State::Delivered(granted),
                // The wake was revoked.
                (State::Parked, Wake::Granted) => return None,
                (State::Parked, reason) => State::Delivered(reason),
                (State::Interrupting, _) => State::Interrupting,
                (State::Free | State::Delivered(_), _) => return None,
            };
            Some(slot.fiber)
        });
        if let Some(fiber) = fiber {
            self.wakes.set(self.wakes.get() + 1);
            self.embedder.resume(fiber);
        }
    }
}

impl Host for Hub {
    fn fire(&self, id: WatcherId, data: usize, revents: Revents) {
        self.embedder.fire(id, data, revents);
    }

    #[inline]
    fn run_entry(&self, entry: Entry) {
        match entry {
            Entry::Wake(token, reason) => self.deliver(token, reason),
            Entry::Call(payload) => self.embedder.call(payload),
            Entry::Closed(source) => self.reactor.source_detach(source),
        }
    }

    #[inline]
    fn expect(&self, next: Option<Token>, later: Option<Token>) {
        for (token, near) in [(next, true), (later, false)] {
            if let Some(token) = token
                && let Some(fiber) = self.slots.with(|s| s.of(token).map(|slot| slot.fiber))
                && !fiber.is_null()
            {
                self.embedder.expect(fiber, near);
            }
        }
    }

    fn patience(&self) -> Nanos {
        self.embedder.patience()
    }

    fn last_look(&self) {
        self.embedder.last_look();
    }

    fn before_sleep(&self) {
        self.embedder.before_sleep();
    }

    fn after_sleep(&self) {
        self.embedder.after_sleep();
    }

    fn tick(&self) {
        self.embedder.tick();
    }

    fn keep_running(&self) -> bool {
        self.embedder.keep_running()
    }
}

/// A park that is about to happen. Dropping it without waiting forgets it.
#[must_use = "a park that is not waited for does nothing"]
pub struct Park<'h> {
    hub: &'h Hub,
    token: Token,
    _here: PhantomData<*const ()>,
}

impl Park<'_> {
    /// Its name, for whoever shall end it.
    #[inline]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Parks until a wake or the deadline, in nanoseconds of CLOCK_MONOTONIC. Returns at once, without
    /// a switch, if it was unparked since it was prepared.
    ///
    /// # Errors
    /// [`Interrupted`] when the fiber was entered by something other than a wake.
    #[inline]
    pub fn wait(self, deadline: Option<Nanos>) -> Result<Wake, Interrupted> {
        if let Some(granted) =
            self.hub
                .slots
                .with(|s| match s.of(self.token).map(|slot| slot.state) {
                    Some(State::Granted(granted)) => Some(granted),
                    _ => None,
                })
        {
            return Ok(granted);
        }
        self.wait_always(deadline)
    }

    /// As [`wait`](Self::wait), but gives way to the hub even if it was unparked already.
    ///
    /// # Errors
    /// As `wait`.
    #[inline]
    pub fn wait_always(self, deadline: Option<Nanos>) -> Result<Wake, Interrupted> {
        let hub = self.hub;
        let timer = deadline.map(|at| hub.reactor.arm(at, self.token));
        hub.embedder.enter_hub();
        if let Some(timer) = timer {
            hub.reactor.disarm(timer);
        }
        match hub.slots.with(|s| s.of(self.token).map(|slot| slot.state)) {
            Some(State::Delivered(reason)) => Ok(reason),
            Some(State::Granted(granted)) => Err(Interrupted {
                granted: Some(granted),
            }),
            _ => Err(Interrupted { granted: None }),
        }
    }
}

impl Drop for Park<'_> {
    #[inline]
    fn drop(&mut self) {
        self.hub.slots.with(|s| {
            let index = self.token.index();
            if let Some(slot) = s.of(self.token) {
                slot.forget();
                s.free.push(index);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Attendant for Nothing {
        fn attend(&self, _: u32, _: u32, _: Wake) {}
    }

    #[test]
    fn attendants_are_limited_and_a_number_given_back_is_used_again_last() {
        let mut all = Attendants::default();
        let first = all.insert(Weak::<Nothing>::new()).unwrap();
        all.remove(first);
        all.remove(first);
        all.remove(AttendantId::NOBODY);
        for _ in 1..ATTENDANTS {
            let next = all.insert(Weak::<Nothing>::new()).unwrap();
            assert!(next != first && next != AttendantId::NOBODY);
            let token = next.token(ATTENDED_INDICES - 1, 1).index();
            assert_eq!((token & !ATTENDED) >> ATTENDANT_SHIFT, next.0);
        }
        assert_eq!(all.insert(Weak::<Nothing>::new()), Some(first));
        assert_eq!(all.insert(Weak::<Nothing>::new()), None);
        all.remove(first);
        assert_eq!(all.insert(Weak::<Nothing>::new()), Some(first));
    }
}
