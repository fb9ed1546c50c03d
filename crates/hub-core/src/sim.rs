//! [`Sim`]: a fake [`Loop`] with virtual time and scripted readiness, for tests of what stands above.
//!
//! Descriptors are mere numbers. A poll that would sleep moves the clock to the next scripted moment or to
//! its deadline; one that would sleep for ever panics, unless another thread wakes it within five seconds.

use crate::event_loop::{
    Cancel, Caps, Counters, Event, How, Interest, Key, Loop, Mode, Op, Readiness, Start, Until,
    Wake, Watch,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a sleep without an end waits for another thread, in real time.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct State {
    now: u64,
    /// What is ready, by descriptor.
    levels: HashMap<RawFd, Readiness>,
    /// Edges not delivered yet, in order.
    edges: VecDeque<(RawFd, Readiness)>,
    script: BTreeMap<u64, Vec<(RawFd, Readiness)>>,
    watches: Vec<(Key, RawFd, Interest, Mode)>,
    unpollable: HashSet<RawFd>,
    bad: HashSet<RawFd>,
    ops: Vec<(Key, RawFd)>,
    done: Vec<Event>,
    /// The deadlines of the polls that slept.
    sleeps: Vec<Option<u64>>,
    counters: Counters,
}

/// The script and the clock of a fake loop; clones share them.
#[derive(Clone, Default)]
pub struct Sim {
    state: Rc<RefCell<State>>,
    waker: Arc<SimWaker>,
}

impl Sim {
    /// A fake world at time 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// A loop in this world; one at a time is meant.
    pub fn make_loop(&self) -> SimLoop {
        SimLoop {
            sim: self.clone(),
            caps: Caps {
                name: "sim",
                stream: How::Native,
                connect: How::Native,
                file: How::Native,
                path: How::Offloaded,
            },
        }
    }

    /// The virtual time in nanoseconds.
    pub fn now(&self) -> u64 {
        self.state.borrow().now
    }

    /// Lets `nanos` pass, as if a callback had computed for that long.
    pub fn pass(&self, nanos: u64) {
        self.state.borrow_mut().now += nanos;
    }

    /// Makes `fd` ready now, for level watchers until [`clear`](Self::clear), for edge watchers once.
    pub fn ready(&self, fd: RawFd, readiness: Readiness) {
        let mut s = self.state.borrow_mut();
        let level = s.levels.entry(fd).or_default();
        *level = level.with(readiness);
        s.edges.push_back((fd, readiness));
    }

    /// Makes `fd` no longer ready.
    pub fn clear(&self, fd: RawFd, readiness: Readiness) {
        if let Some(level) = self.state.borrow_mut().levels.get_mut(&fd) {
            *level = level.without(readiness);
        }
    }

    /// Makes `fd` ready at the moment `at`.
    pub fn ready_at(&self, at: u64, fd: RawFd, readiness: Readiness) {
        self.state
            .borrow_mut()
            .script
            .entry(at)
            .or_default()
            .push((fd, readiness));
    }

    /// Makes `fd` one that is always ready, like a regular file under epoll.
    pub fn unpollable(&self, fd: RawFd) {
        self.state.borrow_mut().unpollable.insert(fd);
    }

    /// Makes `fd` a closed one: watching it gives `EBADF`.
    pub fn bad(&self, fd: RawFd) {
        self.state.borrow_mut().bad.insert(fd);
    }

    /// Ends the oldest operation on `fd` with `result`. `false` if there is none.
    pub fn finish(&self, fd: RawFd, result: io::Result<u32>) -> bool {
        let mut s = self.state.borrow_mut();
        match s.ops.iter().position(|(_, f)| *f == fd) {
            Some(at) => {
                let (key, _) = s.ops.remove(at);
                s.done.push(Event::Done(key, result));
                true
            }
            None => false,
        }
    }

    /// How many registrations there are.
    pub fn watched(&self) -> usize {
        self.state.borrow().watches.len()
    }

    /// The deadlines of the polls that slept so far; `None` for one without.
    pub fn sleeps(&self) -> Vec<Option<u64>> {
        self.state.borrow().sleeps.clone()
    }
}

impl State {
    /// Appends what is ready now.
    fn collect(&mut self, out: &mut Vec<Event>) {
        let due: Vec<u64> = self.script.range(..=self.now).map(|(at, _)| *at).collect();
        for at in due {
            for (fd, readiness) in self.script.remove(&at).unwrap_or_default() {
                let level = self.levels.entry(fd).or_default();
                *level = level.with(readiness);
                self.edges.push_back((fd, readiness));
            }
        }
        out.append(&mut self.done);
        let edges = std::mem::take(&mut self.edges);
        for (fd, readiness) in edges {
            for (key, _, want, _) in self
                .watches
                .iter()
                .filter(|w| w.1 == fd && w.3 == Mode::Edge)
            {
                if let Some(got) = visible(readiness, *want) {
                    out.push(Event::Ready(*key, got));
                }
            }
        }
        for (key, fd, want, _) in self.watches.iter().filter(|w| w.3 == Mode::Level) {
            if let Some(got) = self.levels.get(fd).and_then(|r| visible(*r, *want)) {
                out.push(Event::Ready(*key, got));
            }
        }
    }
}

/// What of `readiness` a registration for `want` hears.
fn visible(readiness: Readiness, want: Interest) -> Option<Readiness> {
    let got = Readiness(readiness.0 & (want.0 | !(Readiness::READ.0 | Readiness::WRITE.0)));
    (!got.is_empty()).then_some(got)
}

/// The loop of a [`Sim`].
pub struct SimLoop {
    sim: Sim,
    caps: Caps,
}

impl Loop for SimLoop {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn watch(&mut self, fd: RawFd, key: Key, want: Interest, mode: Mode) -> io::Result<Watch> {
        let mut s = self.sim.state.borrow_mut();
        if fd < 0 || s.bad.contains(&fd) {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        if s.unpollable.contains(&fd) {
            return Ok(Watch::AlwaysReady);
        }
        s.watches.retain(|w| w.0 != key);
        s.watches.push((key, fd, want, mode));
        let level = s.levels.get(&fd).copied().unwrap_or_default();
        if mode == Mode::Edge && !level.is_empty() {
            s.edges.push_back((fd, level));
        }
        Ok(Watch::Armed)
    }

    fn unwatch(&mut self, key: Key) {
        self.sim.state.borrow_mut().watches.retain(|w| w.0 != key);
    }

    fn fd_closing(&mut self, fd: RawFd, out: &mut Vec<Event>) {
        let mut s = self.sim.state.borrow_mut();
        s.watches.retain(|w| w.1 != fd);
        s.levels.remove(&fd);
        s.edges.retain(|e| e.0 != fd);
        let canceled = || io::Error::from_raw_os_error(libc::ECANCELED);
        out.extend(
            s.ops
                .iter()
                .filter(|o| o.1 == fd)
                .map(|o| Event::Done(o.0, Err(canceled()))),
        );
        s.ops.retain(|o| o.1 != fd);
    }

    unsafe fn start(&mut self, key: Key, op: Pin<&mut Op>) -> Start {
        let Some(fd) = op.awaited_fd() else {
            return Start::Offload;
        };
        self.sim.state.borrow_mut().ops.push((key, fd));
        Start::Parked
    }

    fn cancel(&mut self, key: Key) -> Cancel {
        let mut s = self.sim.state.borrow_mut();
        s.ops.retain(|o| o.0 != key);
        let done = s
            .done
            .iter()
            .position(|e| matches!(e, Event::Done(k, _) if *k == key));
        match done.map(|at| s.done.remove(at)) {
            Some(Event::Done(_, result)) => Cancel::Finished(result),
            _ => Cancel::Cancelled,
        }
    }

    fn poll(&mut self, until: Until, out: &mut Vec<Event>) -> io::Result<()> {
        let before = out.len();
        let mut s = self.sim.state.borrow_mut();
        s.counters.polls += 1;
        s.collect(out);
        if self.sim.waker.take() {
            out.push(Event::Woken);
        }
        if out.len() == before && until != Until::Now {
            let deadline = if let Until::At(at) = until {
                Some(at)
            } else {
                None
            };
            s.sleeps.push(deadline);
            let scripted = s.script.keys().next().copied();
            match (deadline, scripted) {
                (Some(d), Some(e)) => s.now = d.min(e).max(s.now),
                (Some(t), None) | (None, Some(t)) => s.now = t.max(s.now),
                (None, None) => {
                    assert!(self.sim.waker.wait(), "a fake loop would sleep for ever");
                    out.push(Event::Woken);
                }
            }
            s.collect(out);
        }
        s.counters.events += (out.len() - before) as u64;
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.sim.waker.clone()
    }

    fn after_fork(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn as_raw_fd(&mut self) -> Option<RawFd> {
        None
    }

    fn counters(&self) -> Counters {
        self.sim.state.borrow().counters
    }
}

/// A flag: it may be set in a signal handler.
#[derive(Default)]
struct SimWaker {
    woken: AtomicBool,
}

impl SimWaker {
    fn take(&self) -> bool {
        self.woken.swap(false, Ordering::SeqCst)
    }

    /// Waits for a wake in real time.
    fn wait(&self) -> bool {
        let end = Instant::now() + PATIENCE;
        while !self.take() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        true
    }
}

impl Wake for SimWaker {
    fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
    }
}
