//! What the cases share: descriptors, polls with patience, a host that records, and a lock for what is the
//! whole process's.

use crate::trace;
use gevent_hub_core::event_loop::{Event, Key, Loop, Readiness, Until};
use gevent_hub_core::reactor::{
    Entry, Host, Reactor, Revents, RunMode, SourceId, Token, WatcherId, WatcherKind, monotonic,
};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Makes the loop under test.
pub type MakeLoop<'a> = &'a dyn Fn() -> Box<dyn Loop>;
/// Makes a reactor on the loop under test.
pub type MakeReactor<'a> = &'a dyn Fn() -> Rc<Reactor>;

/// Reading.
pub const R: Readiness = Readiness::READ;
/// Writing.
pub const W: Readiness = Readiness::WRITE;
/// A millisecond in nanoseconds.
pub const MS: u64 = 1_000_000;
/// How long a case waits for what has to come.
pub const PATIENCE: u64 = 3_000 * MS;
/// How long a case waits for what must not come.
pub const QUIET: u64 = 15 * MS;

/// Held by cases that use signals, children or forks, which belong to the process.
pub fn process() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The key number `n`.
pub fn key(n: u32) -> Key {
    Key::new(n, 7)
}

/// Polls until `enough` says so, and gives all events.
pub fn poll_until(l: &mut dyn Loop, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let mut out = Vec::new();
    let end = monotonic() + PATIENCE;
    while !enough(&out) {
        assert!(monotonic() < end, "it did not come; only {out:?}");
        l.poll(Until::At(end), &mut out).unwrap();
    }
    out
}

/// Polls until `key` is ready for any of `what`, and gives its readiness.
pub fn ready(l: &mut dyn Loop, key: Key, what: Readiness) -> Readiness {
    let events = poll_until(l, |e| readiness_of(e, key).has(what));
    readiness_of(&events, key)
}

/// The union of what was reported of `key`.
pub fn readiness_of(events: &[Event], key: Key) -> Readiness {
    events.iter().fold(Readiness::NONE, |all, e| match e {
        Event::Ready(k, r) if *k == key => all.with(*r),
        _ => all,
    })
}

/// Polls for a while and fails if anything of `key` comes.
pub fn silent(l: &mut dyn Loop, key: Key) {
    let mut out = Vec::new();
    let end = monotonic() + QUIET;
    while monotonic() < end {
        l.poll(Until::At(end), &mut out).unwrap();
        let heard = out
            .iter()
            .any(|e| matches!(e, Event::Ready(k, _) | Event::Done(k, _) if *k == key));
        assert!(!heard, "{out:?}");
    }
}

/// The result of the operation `key`, waited for.
pub fn done(l: &mut dyn Loop, key: Key) -> io::Result<u32> {
    let mut events = poll_until(l, |e| {
        e.iter()
            .any(|e| matches!(e, Event::Done(k, _) if *k == key))
    });
    let at = events
        .iter()
        .position(|e| matches!(e, Event::Done(k, _) if *k == key))
        .unwrap();
    match events.swap_remove(at) {
        Event::Done(_, result) => result,
        _ => unreachable!("it was found as Done"),
    }
}

/// A connected pair, non-blocking.
pub fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

/// A connected pair of TCP sockets, non-blocking.
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (b, _) = listener.accept().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    a.set_nodelay(true).unwrap();
    (a, b)
}

/// A pipe, non-blocking: the reading and the writing end.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors, which are ours then.
    unsafe {
        assert_eq!(
            libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK),
            0
        );
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

/// write(2), all of it.
pub fn put(fd: &impl AsRawFd, data: &[u8]) {
    // SAFETY: the bytes of `data`.
    let n = unsafe { libc::write(fd.as_raw_fd(), data.as_ptr().cast(), data.len()) };
    assert_eq!(n, data.len() as isize, "{}", io::Error::last_os_error());
}

/// write(2) until nothing more fits; gives how many bytes did.
pub fn fill(fd: &impl AsRawFd) -> usize {
    let chunk = [1u8; 1 << 16];
    let mut filled = 0;
    loop {
        // SAFETY: the bytes of the chunk.
        let n = unsafe { libc::write(fd.as_raw_fd(), chunk.as_ptr().cast(), chunk.len()) };
        if n < 0 {
            return filled;
        }
        filled += n as usize;
    }
}

/// read(2) until EAGAIN or the end; gives what came.
pub fn get_all(fd: &impl AsRawFd) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buf = [0u8; 4096];
    loop {
        // SAFETY: room for the bytes.
        let n = unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
        if n <= 0 {
            return all;
        }
        all.extend_from_slice(&buf[..n as usize]);
    }
}

/// An open regular file with some text in it, already unlinked.
pub fn file() -> std::fs::File {
    static COUNT: Mutex<u32> = Mutex::new(0);
    let n = {
        let mut count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        *count
    };
    let path = std::env::temp_dir().join(format!("gevent-conformance-{}-{n}", std::process::id()));
    std::fs::write(&path, b"some text").unwrap();
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}

/// Whether `fd` is the number of an open descriptor.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: no memory is passed.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// A reactor on `backend`.
pub fn reactor(backend: Box<dyn Loop>) -> Rc<Reactor> {
    Reactor::new(backend).unwrap()
}

type Callback = Rc<dyn Fn(&Recorder, Revents)>;

/// A watcher that waits to read from `fd`.
pub fn io(fd: &impl AsRawFd) -> WatcherKind {
    WatcherKind::Io {
        fd: fd.as_raw_fd(),
        want: R,
    }
}

/// A host that logs what it is asked to do; watchers may have a callback besides, by their data.
pub struct Recorder {
    /// The reactor that it runs.
    pub reactor: Rc<Reactor>,
    log: RefCell<Vec<String>>,
    callbacks: RefCell<HashMap<usize, Callback>>,
    sleeping: Cell<bool>,
}

impl Recorder {
    /// Of a new reactor.
    pub fn new(make: MakeReactor) -> Recorder {
        Recorder {
            reactor: make(),
            log: RefCell::default(),
            callbacks: RefCell::default(),
            sleeping: Cell::new(false),
        }
    }

    /// Adds a watcher and starts it.
    pub fn start(&self, kind: WatcherKind, data: usize) -> WatcherId {
        let id = self.reactor.add(kind, data);
        self.reactor.start(id).unwrap();
        id
    }

    /// A timer that fires once.
    pub fn timer(&self, nanos: u64, data: usize) -> WatcherId {
        self.start(
            WatcherKind::Timer {
                after: nanos,
                repeat: 0,
            },
            data,
        )
    }

    /// Adds a watcher that its first event stops, and starts it.
    pub fn once(&self, kind: WatcherKind, data: usize) -> WatcherId {
        let id = self.start(kind, data);
        self.on(data, move |t, _| t.reactor.stop(id));
        id
    }

    /// A new source for `fd`, known to be empty, with a fiber that waits to read from it.
    pub fn waiting(&self, fd: &impl AsRawFd, token: Token) -> SourceId {
        let source = self.reactor.source(fd.as_raw_fd());
        self.reactor.source_clear(source, R);
        assert!(self.reactor.source_wait(source, R, token).unwrap());
        source
    }

    /// What the watcher with `data` does; an entry's `Call` payload counts as data too.
    pub fn on(&self, data: usize, f: impl Fn(&Recorder, Revents) + 'static) {
        self.callbacks.borrow_mut().insert(data, Rc::new(f));
    }

    /// Adds to the log.
    pub fn say(&self, what: impl Into<String>) {
        self.log.borrow_mut().push(what.into());
    }

    /// Whether nothing was added to the log since.
    pub fn is_silent(&self) -> bool {
        self.log.borrow().is_empty()
    }

    /// The log since the last call, joined by spaces.
    pub fn said(&self) -> String {
        let words = self.log.take().join(" ");
        trace::say_words(&words);
        words
    }

    /// Runs, with a limit of time for the whole.
    pub fn run(&self, mode: RunMode) -> bool {
        let guard = self.reactor.add(
            WatcherKind::Timer {
                after: PATIENCE,
                repeat: 0,
            },
            usize::MAX,
        );
        self.reactor.set_ref(guard, false);
        self.reactor.update_now();
        let _ = self.reactor.start(guard);
        let alive = self.reactor.run(self, mode).unwrap();
        self.reactor.remove(guard);
        alive
    }

    /// Runs single iterations until the log has `n` entries.
    pub fn run_until(&self, n: usize) -> String {
        self.reactor.reference();
        while self.log.borrow().len() < n {
            // An iteration that runs the queue may sleep afterwards, for what would not come.
            let queued = self.reactor.queue_len() != 0;
            self.run(if queued {
                RunMode::NoWait
            } else {
                RunMode::Once
            });
        }
        self.reactor.unreference();
        self.said()
    }

    fn call(&self, data: usize, revents: Revents) {
        let f = self.callbacks.borrow().get(&data).cloned();
        if let Some(f) = f {
            f(self, revents);
        }
    }
}

impl Host for Recorder {
    fn fire(&self, _: WatcherId, data: usize, revents: Revents) {
        assert_ne!(
            data,
            usize::MAX,
            "it took too long; so far: {}",
            self.said()
        );
        self.say(format!("w{data}"));
        self.call(data, revents);
    }

    fn run_entry(&self, entry: Entry) {
        match entry {
            Entry::Call(n) => {
                self.say(format!("c{n}"));
                self.call(n, Revents::NONE);
            }
            Entry::Wake(token, wake) => self.say(format!("{}:{wake:?}", token.0)),
            Entry::Closed(_) => unreachable!("the reactor keeps these to itself"),
        }
    }

    fn before_sleep(&self) {
        assert!(!self.sleeping.replace(true));
    }

    fn after_sleep(&self) {
        assert!(self.sleeping.replace(false));
    }
}

/// Forks; the child runs `f` and ends with its result, which is given to the parent with `true` for
/// success. A panic in the child is a failure.
pub fn in_child(f: impl FnOnce() -> bool) -> libc::pid_t {
    // SAFETY: the child only runs `f` and ends; the C library makes its allocator usable there.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(false);
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(if ok { 0 } else { 1 }) };
    }
    pid
}

/// Waits for a child of [`in_child`] and asserts its success.
pub fn assert_ok(pid: libc::pid_t) {
    let mut status = 0;
    // SAFETY: room for the status.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0, "the child failed");
}
