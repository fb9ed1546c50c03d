//! The server: listeners and connections on a reactor, and the application that answers.
//!
//! A connection that waits for a request is a small state machine without a fiber, which the hub's fiber
//! steps when its descriptor is ready. When a head is complete it is lent to the [`Application`], which
//! answers from a fiber of its own and gives the connection [back](Connection::next) when nothing more of it
//! was received.

mod attended;
mod connection;
mod gathering;
mod io;
mod listening;
mod outbox;
mod served;
mod settings;
#[cfg(test)]
mod tests;
mod tls;

pub use connection::{Connection, Phase};
pub use io::{Error, Parker, Straight};
pub use listening::Peer;
pub use outbox::Framing;
pub use served::Next;
pub use settings::Settings;

use crate::head::Head;
use crate::reject::Reject;
use gathering::Trust;
use gevent_hub_core::cell::LocalCell;
use gevent_hub_core::event_loop::Key;
use gevent_hub_core::hub::{ATTENDANTS, ATTENDED_INDICES, Attendant, AttendantId, Hub};
use gevent_hub_core::reactor::{Entry, Reactor, Token, Wake};
use gevent_hub_core::slab::Slab;
use gevent_net::tls::{ServerConfig, Session};
use listening::Listening;
use std::cell::Cell;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// Answers requests. Every call comes on the hub's fiber, or, for the further requests of a pipeline, on the
/// fiber that serves the connection; no call may wait for anything except in fibers that it starts.
pub trait Application: Sized + 'static {
    /// What is kept of a request.
    type Request;

    /// A head is complete; it and its bytes are lent for this call only.
    fn prepare(
        &self,
        connection: &Rc<Connection<Self>>,
        head: &Head,
        bytes: &[u8],
    ) -> Self::Request;

    /// A connection is to be served, beginning with `request`: by a fiber that calls
    /// [`Connection::next`] after each answer, until that has released the connection.
    fn serve(&self, connection: Rc<Connection<Self>>, request: Self::Request);

    /// Whether no further fiber can be had. Then nothing is accepted, received or parsed until
    /// [`Server::room`] is called.
    fn is_full(&self) -> bool {
        false
    }

    /// A request was refused: before `serve`, with its request line as far as it came, or, with an empty one,
    /// while its body was thrown away.
    fn refused(&self, _connection: &Connection<Self>, _reject: Reject, _line: &[u8]) {}

    /// The server neither accepts nor has any connection. [`Server::accept_from`] may begin anew.
    fn over(&self) {}

    /// A connection was accepted. True: the application has taken the descriptor, and the server has nothing to
    /// do with it.
    fn take(&self, _fd: RawFd, _peer: Peer) -> bool {
        false
    }

    /// Accepting has failed; it goes on after a pause, unless the application stops the server.
    fn accept_failed(&self, _errno: i32) {}
}

/// The index of a listener's tokens; connections are below.
const LISTENER: u32 = ATTENDED_INDICES - 1;
/// Bytes received at a time.
const SCRATCH: usize = 64 * 1024;

/// A server of one application on one hub.
pub struct Server<A: Application> {
    me: Weak<Server<A>>,
    app: A,
    settings: Cell<Settings>,
    reactor: Rc<Reactor>,
    /// The [id](Hub::id) of its hub.
    home: u64,
    /// Names it on its hub while it accepts or has a connection.
    attendant: Cell<AttendantId>,
    connections: LocalCell<Slab<Rc<Connection<A>>>>,
    listening: LocalCell<Option<Listening>>,
    /// Connections that wait for the application to have room.
    stalled: LocalCell<VecDeque<Key>>,
    /// Not in use by anybody on the stack; else it is made anew.
    scratch: LocalCell<Vec<u8>>,
    head: LocalCell<Option<Box<Head>>>,
    /// As `scratch`, for bytes that are encrypted.
    cipher: LocalCell<Vec<u8>>,
    tls: LocalCell<Option<Arc<ServerConfig>>>,
    trust: Cell<Trust>,
    outbox: LocalCell<Option<outbox::Outbox>>,
    draining: Cell<bool>,
    /// How many connections are listened to before they close.
    lingering: Cell<usize>,
    accepted: Cell<u64>,
    requests: Cell<u64>,
}

impl<A: Application> Server<A> {
    /// A server on the thread's hub, which accepts nothing yet.
    ///
    /// # Panics
    /// On a thread without a hub.
    pub fn new(app: A, settings: Settings) -> Rc<Self> {
        Hub::with(|hub| {
            let hub = hub.expect("a server lives on a hub");
            Rc::new_cyclic(|me: &Weak<Server<A>>| Server {
                me: me.clone(),
                app,
                settings: Cell::new(settings),
                reactor: hub.reactor().clone(),
                home: hub.id(),
                attendant: Cell::new(AttendantId::NOBODY),
                connections: LocalCell::default(),
                listening: LocalCell::new(None),
                stalled: LocalCell::default(),
                scratch: LocalCell::default(),
                head: LocalCell::default(),
                cipher: LocalCell::default(),
                tls: LocalCell::new(None),
                trust: Cell::default(),
                outbox: LocalCell::default(),
                draining: Cell::new(false),
                lingering: Cell::new(0),
                accepted: Cell::new(0),
                requests: Cell::new(0),
            })
        })
    }

    /// The application.
    pub fn app(&self) -> &A {
        &self.app
    }

    /// The settings, which may be changed at any time for what begins afterwards.
    pub fn settings(&self) -> Settings {
        self.settings.get()
    }

    /// Changes the settings.
    pub fn set_settings(&self, settings: Settings) {
        self.settings.set(settings);
    }

    /// Encrypts the connections that come from now on, or none with `None`.
    pub fn set_tls(&self, config: Option<Arc<ServerConfig>>) {
        self.tls.with(|tls| *tls = config);
    }

    /// A session for a new connection, if they are encrypted.
    fn tls_session(&self) -> Result<Option<Session>, ()> {
        let Some(config) = self.tls.with(|tls| tls.clone()) else {
            return Ok(None);
        };
        Session::server(config).map(Some).map_err(drop)
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.connections.with(|c| c.len())
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connections accepted and requests begun since the server was made.
    pub fn counts(&self) -> (u64, u64) {
        (self.accepted.get(), self.requests.get())
    }

    /// Whether it was told to end.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Accepts connections of a listening, non-blocking socket, which stays the caller's: it has to be
    /// [stopped](Self::stop_accepting) before the socket is closed.
    ///
    /// # Errors
    /// When as many servers as a hub can tell apart accept or have connections already, and outside of the
    /// server's hub.
    pub fn accept_from(&self, fd: RawFd) -> std::io::Result<()> {
        self.attended()?;
        self.draining.set(false);
        debug_assert!(self.listening.with(|l| l.is_none()), "it accepts already");
        let listening = Listening::new(&self.reactor, fd);
        self.listening.with(|l| *l = Some(listening));
        self.reactor
            .push(Entry::Wake(self.listener_token(), Wake::Ready));
        self.reactor.reference();
        Ok(())
    }

    /// Whether it accepts, or would if there were room.
    pub fn is_accepting(&self) -> bool {
        self.listening.with(|l| l.is_some())
    }

    /// Accepts no more. What was accepted goes on.
    pub fn stop_accepting(&self) {
        if let Some(listening) = self.listening.with(Option::take) {
            listening.end(&self.reactor, self.listener_token());
            self.reactor.unreference();
            self.look_whether_over();
        }
    }

    fn attended(&self) -> std::io::Result<()> {
        if self.attendant.get() != AttendantId::NOBODY {
            return Ok(());
        }
        let id = Hub::with(|hub| {
            let hub = hub.filter(|hub| hub.id() == self.home);
            let hub = hub.ok_or_else(|| std::io::Error::other("the hub of the server is gone"))?;
            let full = || {
                let text = format!("{ATTENDANTS} servers of one hub accept or have connections");
                std::io::Error::other(text)
            };
            hub.attend(self.me.clone()).ok_or_else(full)
        })?;
        self.attendant.set(id);
        Ok(())
    }

    /// Gives the name on the hub back.
    fn unattended(&self) {
        let id = self.attendant.replace(AttendantId::NOBODY);
        if id != AttendantId::NOBODY {
            Hub::with(|hub| {
                if let Some(hub) = hub.filter(|hub| hub.id() == self.home) {
                    hub.dismiss(id);
                }
            });
        }
    }

    fn look_whether_over(&self) {
        if self.is_empty() && self.listening.with(|l| l.is_none()) {
            self.unattended();
            self.app.over();
        }
    }

    /// From now on connections close after their next answer.
    pub fn finish(&self) {
        self.draining.set(true);
    }

    /// Ends gracefully: accepts no more, closes connections that wait for a request, soon those whose clients
    /// still send what nobody reads, and every other one after its answer.
    pub fn drain(&self) {
        self.draining.set(true);
        self.stop_accepting();
        for connection in self.all() {
            connection.close_if_idle();
            connection.hurry();
        }
    }

    /// Closes every connection that no fiber serves. Those that are served close when their fibers notice.
    pub fn close_all(&self) {
        self.draining.set(true);
        self.stop_accepting();
        for connection in self.all() {
            connection.abandon();
        }
    }

    fn all(&self) -> Vec<Rc<Connection<A>>> {
        self.connections
            .with(|c| c.iter().map(|(_, connection)| connection.clone()).collect())
    }

    /// The application may have room again: who waits for it goes on, one after the other while there is room.
    pub fn room(&self) {
        let stalled = !self.stalled.with(|s| s.is_empty());
        if !stalled
            && !self
                .listening
                .with(|l| l.as_ref().is_some_and(Listening::is_held))
        {
            return;
        }
        if self.app.is_full() {
            return;
        }
        let alive = |key: &Key| self.connections.with(|c| c.get(*key).is_some());
        let next = self.stalled.with(|s| {
            while let Some(key) = s.pop_front() {
                if alive(&key) {
                    return Some(key);
                }
            }
            None
        });
        if let Some(key) = next {
            self.reactor.push(Entry::Wake(self.token(key), Wake::Ready));
        } else if self
            .listening
            .with(|l| l.as_mut().is_some_and(Listening::go_on))
        {
            self.reactor
                .push(Entry::Wake(self.listener_token(), Wake::Ready));
        }
    }

    fn stall(&self, key: Key) {
        self.stalled.with(|s| {
            if !s.contains(&key) {
                s.push_back(key);
            }
        });
    }

    fn token(&self, key: Key) -> Token {
        self.attendant.get().token(key.index(), key.generation())
    }

    fn listener_token(&self) -> Token {
        self.attendant.get().token(LISTENER, 1)
    }

    /// A buffer to receive into, to be [given back](Self::give_back).
    fn borrow_scratch(&self) -> Vec<u8> {
        let mut scratch = self.scratch.take();
        if scratch.len() < SCRATCH {
            scratch.resize(SCRATCH, 0);
        }
        scratch
    }

    fn borrow_cipher(&self, size: usize) -> Vec<u8> {
        let mut cipher = self.cipher.take();
        cipher.resize(size, 0);
        cipher
    }

    fn give_back_cipher(&self, cipher: Vec<u8>) {
        self.cipher.with(|c| *c = cipher);
    }

    fn give_back(&self, scratch: Vec<u8>) {
        self.scratch.with(|s| *s = scratch);
    }
}

impl<A: Application> Drop for Server<A> {
    fn drop(&mut self) {
        self.unattended();
    }
}

impl<A: Application> Attendant for Server<A> {
    fn attend(&self, index: u32, generation: u32, reason: Wake) {
        if index == LISTENER {
            self.accept(reason);
            return;
        }
        let key = Key::new(index, generation);
        let found = self.connections.with(|c| c.get(key).cloned());
        if let Some(connection) = found {
            connection.woken(reason);
        }
    }
}
