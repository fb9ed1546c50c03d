//! [`Outbox`]: the answer whose blocks are gathered, kept where a thread can see to it.
//!
//! A fiber's blocks go before any other fiber runs, so at most one answer of a hub is gathered at a time. PEP 3333
//! lets a server keep a block if a thread "ensures that the block continues to be transmitted while the
//! application produces the next block": the thread here looks every [`TICK`], and sends what it finds for the
//! second time. While nothing is gathered it sleeps.
//!
//! As long as nothing was sent, the length of the whole is still open: an answer that ends in time gets a
//! Content-Length, any other becomes a chunk.

use super::{Application, Connection, Error, Parker};
use crate::answer;
use gevent_hub_core::os;
use std::io::IoSlice;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// How long a block waits at least, and half of how long at most.
const TICK: Duration = Duration::from_millis(5);
/// An answer that becomes longer is sent as it comes.
const MOST: usize = 48 * 1024;
/// Room between the head and the body for the field and the size that are not known yet.
const GAP: usize = 40;
const CHUNKED: &[u8] = b"Transfer-Encoding: chunked\r\n\r\n";

/// How the client is to know where the body ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Framing {
    /// The head says it.
    #[default]
    Told,
    /// The head lacks that field and its last line: they are added when the answer is sent.
    Open,
}

/// What a thread may touch: under the lock, which is never held for longer than a send that does not block.
#[derive(Debug, Default)]
struct Slot {
    /// Of the answer that is in it, or was.
    number: u64,
    /// Of its connection; `None` when there is no answer.
    fd: Option<RawFd>,
    /// Head, room, body.
    bytes: Vec<u8>,
    /// Where the room begins.
    head: usize,
    framing: Framing,
    /// How long what the room was filled with is, and what was put behind the body.
    added: usize,
    /// From where on it is to be sent, since nothing can be added any more.
    unsent: Option<usize>,
    /// The thread has to be woken.
    asleep: bool,
    over: bool,
}

impl Slot {
    /// How much of the body there is.
    fn body(&self) -> usize {
        match self.framing {
            Framing::Told => self.bytes.len() - self.head,
            Framing::Open => self.bytes.len() - self.head - GAP,
        }
    }

    /// Moves the text that begins at `at`, behind all else, to the end of the room, and the head up to it.
    fn fill_gap(&mut self, at: usize) -> usize {
        let length = self.bytes.len() - at;
        let body = self.head + GAP;
        debug_assert!(
            length <= GAP,
            "the room is large enough for all that is put there"
        );
        self.bytes.copy_within(at.., body - length);
        self.bytes.truncate(at);
        self.bytes.copy_within(..self.head, GAP - length);
        self.added = length;
        GAP - length
    }

    /// It is to be sent although more will follow. Gives from where on.
    fn seal(&mut self) -> usize {
        let from = match (self.unsent, self.framing) {
            (Some(unsent), _) => return unsent,
            (None, Framing::Told) => 0,
            (None, Framing::Open) => {
                let body = self.body();
                if body > 0 {
                    self.bytes.extend_from_slice(b"\r\n");
                }
                let at = self.bytes.len();
                self.bytes.extend_from_slice(CHUNKED);
                if body > 0 {
                    answer::chunk_size(&mut self.bytes, body);
                }
                let from = self.fill_gap(at);
                self.added += if body > 0 { 2 } else { 0 };
                from
            }
        };
        self.unsent = Some(from);
        from
    }

    /// It is whole. Gives from where on it is to be sent.
    fn complete(&mut self) -> usize {
        let at = self.bytes.len();
        if self.framing == Framing::Told {
            return 0;
        }
        let body = self.body();
        self.bytes.extend_from_slice(b"Content-Length: ");
        answer::decimal(&mut self.bytes, body);
        self.bytes.extend_from_slice(b"\r\n\r\n");
        self.fill_gap(at)
    }

    fn empty(&mut self) {
        self.fd = None;
        self.unsent = None;
        self.bytes.clear();
    }

    /// One look of the thread at an answer that it has seen before.
    fn push(&mut self) {
        let Some(fd) = self.fd else {
            return;
        };
        let from = self.seal();
        let rest = &self.bytes[from..];
        if rest.is_empty() {
            return;
        }
        // SAFETY: the bytes are readable for their length and outlive the call; the descriptor stays the
        // connection's until its answer was taken out.
        let n = unsafe {
            let flags = os::NO_SIGNAL | libc::MSG_DONTWAIT;
            libc::send(fd, rest.as_ptr().cast(), rest.len(), flags)
        };
        // An error comes again to the fiber.
        self.unsent = Some(from + usize::try_from(n).unwrap_or(0));
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    slot: Arc<Mutex<Slot>>,
    watcher: Thread,
    /// [`Reactor::forks`](gevent_hub_core::reactor::Reactor::forks) when the thread was started.
    forks: u32,
}

fn watch(slot: &Mutex<Slot>) {
    let mut seen = 0;
    loop {
        thread::sleep(TICK);
        let mut slot_now = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot_now.over {
            return;
        }
        if slot_now.number != seen {
            seen = slot_now.number;
        } else if slot_now.fd.is_some() {
            slot_now.push();
        } else {
            slot_now.asleep = true;
            while slot_now.asleep && !slot_now.over {
                drop(slot_now);
                thread::park();
                slot_now = slot.lock().unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl Outbox {
    /// `None` if there can be no thread.
    pub(super) fn new(forks: u32) -> Option<Self> {
        let slot = Arc::<Mutex<Slot>>::default();
        let its_own = slot.clone();
        let started = os::start_thread("gevent-wsgi", 128 * 1024, move || watch(&its_own)).ok()?;
        Some(Outbox {
            slot,
            watcher: started.thread().clone(),
            forks,
        })
    }

    /// `None` in a forked child, if a thread that it does not have was holding the lock.
    fn slot(&self, forks: u32) -> Option<MutexGuard<'_, Slot>> {
        match self.forks == forks {
            true => Some(self.slot.lock().unwrap_or_else(PoisonError::into_inner)),
            false => self.slot.try_lock().ok(),
        }
    }

    fn begin(&self, fd: RawFd, head: &[u8], data: &[u8], framing: Framing) -> bool {
        let Some(mut slot) = self.slot(self.forks) else {
            return false;
        };
        if slot.fd.is_some() || head.len() + GAP + data.len() > MOST {
            return false;
        }
        slot.number += 1;
        slot.fd = Some(fd);
        slot.framing = framing;
        slot.added = 0;
        slot.head = head.len();
        slot.bytes.extend_from_slice(head);
        if framing == Framing::Open {
            slot.bytes.extend_from_slice(&[0; GAP]);
        }
        slot.bytes.extend_from_slice(data);
        let asleep = std::mem::take(&mut slot.asleep);
        drop(slot);
        if asleep {
            self.watcher.unpark();
        }
        true
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if let Some(mut slot) = self.slot(self.forks) {
            slot.over = true;
        }
        self.watcher.unpark();
    }
}

impl<A: Application> Connection<A> {
    /// Whether an answer that begins now may be gathered to its end, if that comes soon: the answers before have
    /// shown that it does.
    pub fn may_gather(&self) -> bool {
        self.server().trust.get().is_earned()
            && !self.is_tls()
            && !self.corked.get()
            && !self.is_holding()
            && !self.has_more()
    }

    /// Begins an answer that is gathered. False: nothing was done, and it has to be written.
    pub fn gather(&self, head: &[u8], data: &[u8], framing: Framing) -> bool {
        let server = self.server();
        let forks = server.reactor.forks();
        let begun = server.outbox.with(|outbox| {
            if outbox.as_ref().is_none_or(|outbox| outbox.forks != forks) {
                // The thread of a forked child's is its parent's.
                std::mem::forget(outbox.take());
                *outbox = Outbox::new(forks);
            }
            let outbox = outbox.as_ref();
            outbox.is_some_and(|outbox| outbox.begin(self.fd(), head, data, framing))
        });
        if begun {
            self.gathered.set(true);
            self.answered.set(true);
            self.flush_soon();
        }
        begun
    }

    /// Whether an answer is being gathered: neither its end nor a wait has come, nor too much of it.
    pub fn is_gathering(&self) -> bool {
        self.gathered.get()
    }

    /// Does something with the answer that is gathered.
    fn with_gathered<R>(&self, f: impl FnOnce(&mut Slot) -> R) -> Option<R> {
        let server = self.server();
        server.outbox.with(|outbox| {
            let mut slot = outbox.as_ref()?.slot(server.reactor.forks())?;
            Some(f(&mut slot))
        })
    }

    /// Adds to the answer that is gathered. False: nothing was done, and it has to be written.
    pub fn gather_more(&self, data: &[u8]) -> bool {
        let add = |slot: &mut Slot| {
            let room = slot.unsent.is_none() && slot.bytes.len() + data.len() <= MOST;
            if room {
                slot.bytes.extend_from_slice(data);
            }
            room
        };
        self.gathered.get() && self.with_gathered(add).unwrap_or(false)
    }

    /// The answer that is gathered has come to its end: sends it. False: it is not gathered any more, and its
    /// end has to be written.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn finish_gathering(&self, parker: &dyn Parker) -> Result<bool, Error> {
        if !self.gathered.get() {
            return Ok(false);
        }
        let sent = self.with_gathered(|slot| {
            if slot.unsent.is_some() {
                return None;
            }
            let from = slot.complete();
            let sent = self.sendmsg(&[IoSlice::new(&slot.bytes[from..])]);
            let sent = sent.map(|n| slot.bytes[from + n.unwrap_or(0)..].to_vec());
            self.framing.set(slot.added as u8);
            slot.empty();
            Some(sent)
        });
        let Some(sent) = sent.flatten() else {
            self.fetch();
            return Ok(false);
        };
        self.gathered.set(false);
        match sent {
            Ok(rest) if rest.is_empty() => Ok(true),
            Ok(rest) => {
                self.out.with(|out| *out = rest);
                self.flush(parker).map(|()| true)
            }
            Err(errno) => {
                self.must_close();
                Err(Error::Os(errno))
            }
        }
    }

    /// How many bytes of framing a gathered answer got, beyond what was given for it; 0 the next time.
    pub fn take_framing(&self) -> u64 {
        u64::from(self.framing.take())
    }

    /// Puts what was gathered where everything is that waits to be sent.
    #[inline]
    pub(super) fn fetch_gathered(&self) {
        if self.gathered.get() {
            self.fetch();
        }
    }

    #[cold]
    fn fetch(&self) {
        self.gathered.set(false);
        let taken = self.with_gathered(|slot| {
            let was_late = slot.unsent.is_some();
            let from = slot.seal();
            let rest = slot.bytes[from..].to_vec();
            self.framing.set(slot.added as u8);
            slot.empty();
            (rest, was_late)
        });
        let Some((rest, was_late)) = taken else {
            return;
        };
        let server = self.server();
        let mut gathering = self.gathering.get();
        if was_late {
            server.trust.set(server.trust.get().lost());
            gathering.give_up();
        }
        self.out.with(|out| *out = rest);
        gathering.sent(server.reactor.clock_now());
        self.gathering.set(gathering);
    }

    /// The descriptor goes: nothing of the answer can be sent any more.
    pub(super) fn forget_gathered(&self) {
        if self.gathered.replace(false) {
            self.with_gathered(Slot::empty);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    fn slot(framing: Framing, body: &[u8]) -> Slot {
        let gap: &[u8] = match framing {
            Framing::Told => b"",
            Framing::Open => &[0; GAP],
        };
        Slot {
            bytes: [b"HEAD\r\n", gap, body].concat(),
            head: 6,
            framing,
            ..Slot::default()
        }
    }

    fn text(slot: &Slot, from: usize) -> &str {
        std::str::from_utf8(&slot.bytes[from..]).unwrap()
    }

    #[test]
    fn the_length_is_told_or_a_chunk_begun() {
        let mut whole = slot(Framing::Open, b"body");
        let from = whole.complete();
        let want = "HEAD\r\nContent-Length: 4\r\n\r\nbody";
        assert_eq!(text(&whole, from), want);
        assert_eq!(whole.added, want.len() - "HEAD\r\nbody".len());

        let mut part = slot(Framing::Open, &[b'x'; MOST]);
        let from = part.seal();
        let head = "HEAD\r\nTransfer-Encoding: chunked\r\n\r\nc000\r\n";
        let want = format!("{head}{}\r\n", "x".repeat(MOST));
        assert_eq!(text(&part, from), want);
        assert_eq!(part.added, want.len() - "HEAD\r\n".len() - MOST);
        assert_eq!(part.seal(), from, "once is enough");

        let mut nothing = slot(Framing::Open, b"");
        let from = nothing.seal();
        assert_eq!(
            text(&nothing, from),
            "HEAD\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let mut told = slot(Framing::Told, b"body");
        assert_eq!((told.complete(), told.seal()), (0, 0));
        assert_eq!(text(&told, 0), "HEAD\r\nbody");
    }

    #[test]
    fn the_thread_sends_what_stays() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let (connection, _) = listener.accept().unwrap();
        let outbox = Outbox::new(0).unwrap();
        // Also when it has fallen asleep meanwhile.
        for pause in [0, 50] {
            thread::sleep(Duration::from_millis(pause));
            assert!(outbox.begin(connection.as_raw_fd(), b"HEAD\r\n", b"one", Framing::Open));
            assert!(!outbox.begin(connection.as_raw_fd(), b"", b"", Framing::Told));
            let want = b"HEAD\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
            let mut got = vec![0; want.len()];
            client.read_exact(&mut got).unwrap();
            assert_eq!(got, want);
            let mut slot = outbox.slot(0).unwrap();
            assert_eq!(slot.unsent, Some(slot.bytes.len()));
            slot.empty();
        }
    }
}
