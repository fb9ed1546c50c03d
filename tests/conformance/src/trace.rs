//! The trace of a case: what was heard, in a form that has to be the same on every loop.
//!
//! A case that talks to a loop directly is traced by [`Traced`]: for each key which directions it heard of, in
//! which order they first came, and how its operations ended. How often a direction came again, and whether two
//! came with one event or with two, is each loop's own. A case that talks to a reactor is traced by what its
//! host was asked to do, in full, with repetitions in a row as one.

use gevent_hub_core::event_loop::{
    Cancel, Caps, Counters, Event, Interest, Key, Loop, Mode, Op, Readiness, Start, Subject, Until,
    Wake, Watch,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;

#[derive(Default)]
struct Trace {
    lines: Vec<String>,
    unordered: bool,
    off: bool,
    ignored: Vec<&'static str>,
}

thread_local! {
    static TRACE: RefCell<Trace> = RefCell::default();
}

/// Starts the trace of a case.
pub fn begin() {
    TRACE.take();
}

/// Ends it, and gives it.
pub fn end() -> Vec<String> {
    let trace = TRACE.take();
    if trace.off {
        return Vec::new();
    }
    let kept = |w: &&str| !trace.ignored.contains(w);
    if !trace.unordered {
        let lines = trace.lines.iter();
        let lines = lines.map(|l| l.split(' ').filter(kept).collect::<Vec<_>>().join(" "));
        return lines.filter(|l| !l.is_empty()).collect();
    }
    let words = trace.lines.iter().flat_map(|l| l.split(' ')).filter(kept);
    let set: BTreeSet<String> = words.map(str::to_owned).collect();
    set.into_iter().collect()
}

/// Adds a line.
pub fn say(line: impl Into<String>) {
    TRACE.with_borrow_mut(|t| t.lines.push(line.into()));
}

/// Adds what a host was asked to do: words, of which repetitions in a row are one.
pub fn say_words(words: &str) {
    let mut once: Vec<&str> = words.split(' ').collect();
    once.dedup();
    if !words.is_empty() {
        say(once.join(" "));
    }
}

/// Said by a case in which threads or time decide the order of what comes: only what came is compared.
pub fn unordered() {
    TRACE.with_borrow_mut(|t| t.unordered = true);
}

/// Said by a case that not every loop can run.
pub fn off() {
    TRACE.with_borrow_mut(|t| t.off = true);
}

/// Said by a case with the reason why a loop may or may not say `word`.
pub fn ignore(word: &'static str) {
    TRACE.with_borrow_mut(|t| t.ignored.push(word));
}

#[derive(Default)]
struct Heard {
    want: Interest,
    /// What came first, second, ...
    order: Vec<&'static str>,
    parked: bool,
}

impl Heard {
    fn once(&mut self, what: &'static str) {
        if !self.order.contains(&what) {
            self.order.push(what);
        }
    }

    fn ready(&mut self, got: Readiness) {
        let broken = Readiness::HUP.with(Readiness::ERR);
        let readable = Readiness::READ.with(Readiness::RDHUP).with(broken);
        if self.want.has(Readiness::READ) && got.has(readable) {
            self.once("read");
        }
        if self.want.has(Readiness::WRITE) && got.has(Readiness::WRITE.with(broken)) {
            self.once("write");
        }
        if got.has(broken) {
            self.once("broken");
        }
    }

    fn ended(&mut self, result: &io::Result<u32>) {
        self.parked = false;
        let what = match result {
            Ok(_) => "done",
            Err(e) => match e.raw_os_error() {
                Some(libc::ECANCELED) => "over",
                Some(libc::ECONNREFUSED) => "refused",
                Some(libc::EPIPE) => "EPIPE",
                Some(libc::EBADF) => "EBADF",
                _ => "error",
            },
        };
        self.order.push(what);
    }
}

/// A loop whose events are traced; the trace is written when it is dropped.
pub struct Traced {
    inner: Box<dyn Loop>,
    heard: BTreeMap<Key, Heard>,
    woken: bool,
}

impl Traced {
    /// Traces `inner`.
    pub fn new(inner: Box<dyn Loop>) -> Self {
        Traced {
            inner,
            heard: BTreeMap::new(),
            woken: false,
        }
    }

    fn of(&mut self, key: Key) -> &mut Heard {
        self.heard.entry(key).or_default()
    }

    fn hear(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Ready(key, got) => self.of(*key).ready(*got),
                Event::Done(key, result) if self.of(*key).parked => self.of(*key).ended(result),
                Event::Done(..) => {}
                Event::Woken => self.woken = true,
            }
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        for (key, heard) in &self.heard {
            if !heard.order.is_empty() {
                say(format!("{}: {}", key.index(), heard.order.join(" ")));
            }
        }
        if self.woken {
            say("woken");
        }
    }
}

impl Loop for Traced {
    fn caps(&self) -> &Caps {
        self.inner.caps()
    }

    fn watch(&mut self, fd: RawFd, key: Key, want: Interest, mode: Mode) -> io::Result<Watch> {
        let result = self.inner.watch(fd, key, want, mode);
        let heard = self.of(key);
        heard.want = want;
        match &result {
            Ok(Watch::Armed) => heard.once("armed"),
            Ok(Watch::AlwaysReady) => heard.once("always"),
            Err(_) => heard.once("no"),
        }
        result
    }

    fn watch_subject(&mut self, what: Subject, key: Key) -> io::Result<()> {
        self.inner.watch_subject(what, key)
    }

    fn unwatch(&mut self, key: Key) {
        self.inner.unwatch(key);
    }

    fn fd_closing(&mut self, fd: RawFd, out: &mut Vec<Event>) {
        let before = out.len();
        self.inner.fd_closing(fd, out);
        for event in &out[before..] {
            if let Event::Done(key, _) = event {
                // Whether it had been done a moment before is a matter of luck.
                let heard = self.of(*key);
                heard.parked = false;
                heard.order.push("over");
            }
        }
    }

    unsafe fn start(&mut self, key: Key, op: Pin<&mut Op>) -> Start {
        // What one loop does another may leave to the offload pool.
        let blocking = match *op {
            Op::Read { offset, .. } | Op::Write { offset, .. } => offset >= 0,
            Op::Recv { .. } | Op::Send { .. } | Op::RecvMsg { .. } | Op::SendMsg { .. } => false,
            Op::Accept { .. } | Op::Connect { .. } | Op::Poll { .. } => false,
            _ => true,
        };
        // SAFETY: the caller's promise.
        let start = unsafe { self.inner.start(key, op) };
        if blocking {
            return start;
        }
        match &start {
            Start::Done(result) => self.of(key).ended(result),
            Start::Parked => self.of(key).parked = true,
            Start::Offload => {}
        }
        start
    }

    fn cancel(&mut self, key: Key) -> Cancel {
        let cancel = self.inner.cancel(key);
        let heard = self.of(key);
        if heard.parked && !matches!(cancel, Cancel::Pending) {
            heard.parked = false;
            heard.order.push("over");
        }
        cancel
    }

    fn poll(&mut self, until: Until, out: &mut Vec<Event>) -> io::Result<()> {
        let before = out.len();
        let result = self.inner.poll(until, out);
        self.hear(&out[before..]);
        result
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.inner.waker()
    }

    fn after_fork(&mut self) -> io::Result<()> {
        self.inner.after_fork()
    }

    fn as_raw_fd(&mut self) -> Option<RawFd> {
        self.inner.as_raw_fd()
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}
