//! The reactor on a fake loop: the host that logs, and what the tests share.

mod parks;
mod watchers;

use super::*;
use crate::event_loop::Readiness;
use crate::sim::Sim;
use std::cell::RefCell;
use std::collections::HashMap;

const MS: Nanos = 1_000_000;
const R: Readiness = Readiness::READ;
const W: Readiness = Readiness::WRITE;

/// The callback of the last look.
const LOOK: usize = 999;

/// The callback of each wake, which gets the token in place of events.
const WOKEN: usize = 998;

type Callback = Rc<dyn Fn(&Test, Revents)>;

/// A host that logs all it is asked to do; watchers may have a callback besides.
#[derive(Default)]
struct Test {
    log: RefCell<Vec<String>>,
    callbacks: RefCell<HashMap<usize, Callback>>,
    quit: Cell<bool>,
    patience: Cell<Option<Nanos>>,
    /// What it takes to get back from a sleep, on which clock.
    dear: Cell<Option<(Sim, Nanos)>>,
    /// What `expect` was told last.
    expected: Cell<(Option<Token>, Option<Token>)>,
    reactor: RefCell<Option<Rc<Reactor>>>,
}

impl Test {
    fn new(sim: &Sim) -> (Rc<Test>, Rc<Reactor>) {
        let t = Rc::new(Test::default());
        let r = Reactor::for_tests(sim);
        *t.reactor.borrow_mut() = Some(r.clone());
        (t, r)
    }

    fn r(&self) -> Rc<Reactor> {
        self.reactor.borrow().clone().unwrap()
    }

    fn say(&self, what: impl Into<String>) {
        self.log.borrow_mut().push(what.into());
    }

    fn on(&self, data: usize, f: impl Fn(&Test, Revents) + 'static) {
        self.callbacks.borrow_mut().insert(data, Rc::new(f));
    }

    /// What was logged since the last call, joined.
    fn said(&self) -> String {
        self.log.take().join(" ")
    }

    fn run(&self, mode: RunMode) -> bool {
        self.r().run(self, mode).unwrap()
    }
}

impl Host for Test {
    fn fire(&self, _: WatcherId, data: usize, revents: Revents) {
        self.say(format!("w{data}"));
        let f = self.callbacks.borrow().get(&data).cloned();
        if let Some(f) = f {
            f(self, revents);
        }
    }

    fn run_entry(&self, entry: Entry) {
        match entry {
            Entry::Call(n) => {
                self.say(format!("c{n}"));
                let f = self.callbacks.borrow().get(&(1000 + n)).cloned();
                if let Some(f) = f {
                    f(self, Revents::NONE);
                }
            }
            Entry::Wake(t, w) => {
                self.say(format!("{}:{w:?}", t.0));
                let f = self.callbacks.borrow().get(&WOKEN).cloned();
                if let Some(f) = f {
                    f(self, Revents(t.0 as u32));
                }
            }
            Entry::Closed(_) => unreachable!("the reactor keeps these to itself"),
        }
    }

    fn expect(&self, next: Option<Token>, later: Option<Token>) {
        self.expected.set((next, later));
    }

    fn patience(&self) -> Nanos {
        self.patience.get().unwrap_or(Nanos::MAX)
    }

    fn last_look(&self) {
        self.say("look");
        let f = self.callbacks.borrow().get(&LOOK).cloned();
        if let Some(f) = f {
            f(self, Revents::NONE);
        }
    }

    fn before_sleep(&self) {
        self.say("sleep");
    }

    fn after_sleep(&self) {
        let dear = self.dear.take();
        if let Some((sim, nanos)) = &dear {
            sim.pass(*nanos);
        }
        self.dear.set(dear);
    }

    fn keep_running(&self) -> bool {
        !self.quit.get()
    }
}

fn started(r: &Reactor, kind: WatcherKind, data: usize) -> WatcherId {
    let id = r.add(kind, data);
    r.start(id).unwrap();
    id
}

fn timer(ms: u64) -> WatcherKind {
    WatcherKind::Timer {
        after: ms * MS,
        repeat: 0,
    }
}
