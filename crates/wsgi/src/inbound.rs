//! [`Inbound`]: the receiving half of a connection, without I/O: bytes in; heads, bodies and rejects out.

use crate::body::{BodyDecoder, Framing, Step};
use crate::head::{self, Head};
use crate::limits::{Limits, Policy};
use crate::reject::Reject;
use crate::scan::HeadScanner;
use std::borrow::Cow;

/// What a connection has received and not used up, and the body that is being received.
#[derive(Debug, Default)]
pub struct Inbound {
    /// Of no capacity while nothing waits in it: idle connections own no buffer.
    buf: Vec<u8>,
    at: usize,
    scan: HeadScanner,
    body: Option<Box<BodyDecoder>>,
}

/// How requests are read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// The limits.
    pub limits: Limits,
    /// The strictness.
    pub policy: Policy,
}

impl Inbound {
    /// The bytes that wait.
    pub fn waiting(&self) -> &[u8] {
        &self.buf[self.at..]
    }

    /// The first line of what waits, without its end: of a request that was refused, its request line.
    pub fn first_line(&self) -> &[u8] {
        let waiting = self.waiting();
        let start = waiting.iter().position(|c| !matches!(c, b'\r' | b'\n'));
        let rest = &waiting[start.unwrap_or(waiting.len())..];
        let end = rest.iter().position(|c| matches!(c, b'\r' | b'\n'));
        &rest[..end.unwrap_or(rest.len())]
    }

    /// Whether nothing of a further request was received.
    pub fn is_idle(&self) -> bool {
        self.body.is_none() && (self.at == self.buf.len() || self.scan_is_empty())
    }

    fn scan_is_empty(&self) -> bool {
        self.scan != HeadScanner::default() && self.scan.is_empty()
    }

    /// Whether a body is being received.
    pub fn in_body(&self) -> bool {
        self.body.is_some()
    }

    /// Adds bytes that were received.
    pub fn feed(&mut self, fresh: &[u8]) {
        if self.at > 0 {
            self.buf.drain(..self.at);
            self.at = 0;
        }
        self.buf.extend_from_slice(fresh);
    }

    /// Uses up `n` of the bytes that wait.
    pub fn consume(&mut self, n: usize) {
        self.at += n;
        if self.at >= self.buf.len() {
            self.buf = Vec::new();
            self.at = 0;
        }
    }

    /// Gives all bytes that wait away: the connection goes on as something else than HTTP.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.waiting().to_vec();
        self.buf = Vec::new();
        self.at = 0;
        rest
    }

    /// Looks for a head in what waits and `fresh`, which comes behind it. If one is complete it is parsed
    /// into `head`, and `f` gets it with its bytes; what follows them waits. The body, if there is one, is
    /// to be received before the next head.
    ///
    /// # Errors
    /// A [`Reject`]; the connection is of no use then.
    pub fn head<R>(
        &mut self,
        fresh: &[u8],
        head: &mut Head,
        rules: &Rules,
        f: impl FnOnce(&Head, &[u8]) -> R,
    ) -> Result<Option<R>, Reject> {
        if self.at < self.buf.len() {
            if !fresh.is_empty() {
                self.feed(fresh);
            }
            let buf = std::mem::take(&mut self.buf);
            let from = self.at;
            let found = self.parse(&buf[from..], head, rules, f);
            self.buf = buf;
            return match found? {
                Some((end, r)) => {
                    self.consume(end);
                    Ok(Some(r))
                }
                None => Ok(None),
            };
        }
        if fresh.is_empty() {
            return Ok(None);
        }
        match self.parse(fresh, head, rules, f) {
            Ok(Some((end, r))) => {
                self.keep(&fresh[end..]);
                Ok(Some(r))
            }
            // What was wrong is kept too, for the log.
            other => {
                self.keep(fresh);
                other.map(|_| None)
            }
        }
    }

    fn keep(&mut self, rest: &[u8]) {
        self.at = 0;
        self.buf.clear();
        if !rest.is_empty() {
            self.buf.extend_from_slice(rest);
        }
    }

    #[inline]
    fn parse<R>(
        &mut self,
        data: &[u8],
        head: &mut Head,
        rules: &Rules,
        f: impl FnOnce(&Head, &[u8]) -> R,
    ) -> Result<Option<(usize, R)>, Reject> {
        let Some((start, end)) = self.scan.scan(data, &rules.limits)? else {
            return Ok(None);
        };
        self.scan = HeadScanner::default();
        let bytes = match rules.policy {
            Policy::Strict => Cow::Borrowed(&data[start..end]),
            _ => head::unfold(&data[start..end]),
        };
        head.parse(&bytes, &rules.limits, rules.policy)?;
        if !matches!(head.framing, Framing::None | Framing::Length(0)) {
            let decoder = BodyDecoder::new(head.framing, &rules.limits, rules.policy);
            self.body = Some(Box::new(decoder));
        }
        Ok(Some((end, f(head, &bytes))))
    }

    /// Takes a step in the body with the bytes that wait. Gives the bytes of it that came out; an empty
    /// slice says that more has to be received, unless the body [is over](Self::in_body).
    ///
    /// # Errors
    /// A [`Reject`]; the connection is of no use then.
    pub fn body<R>(&mut self, most: usize, f: impl FnOnce(&[u8]) -> R) -> Result<R, Reject> {
        let Some(decoder) = &mut self.body else {
            return Ok(f(&[]));
        };
        let waiting = &self.buf[self.at..];
        let Step { consumed, body } = decoder.step_at_most(waiting, most)?;
        let r = f(&waiting[consumed - body..consumed]);
        if decoder.is_done() {
            self.body = None;
        }
        self.consume(consumed);
        Ok(r)
    }

    /// Bytes of the body that may be received past the buffer, which is empty; see
    /// [`BodyDecoder::direct`].
    pub fn direct(&self) -> u64 {
        match &self.body {
            Some(decoder) if self.at == self.buf.len() => decoder.direct(),
            _ => 0,
        }
    }

    /// Says that so many bytes of the body went past the buffer.
    pub fn advance(&mut self, n: u64) {
        if let Some(decoder) = &mut self.body {
            decoder.advance(n);
            if decoder.is_done() {
                self.body = None;
            }
        }
    }
}

/// What a [`Machine`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request head; its bytes.
    Head(Vec<u8>),
    /// Bytes of its body; what comes in several pieces is one event.
    Body(Vec<u8>),
    /// The request is complete.
    End,
    /// The connection goes on with another protocol; its bytes.
    Raw(Vec<u8>),
    /// The client wants no further answer; nothing follows.
    Close,
    /// It was wrong; nothing follows.
    Reject(Reject),
}

/// A whole connection as a list of events, for tests and fuzzing: bytes in, events out, and the same events
/// however the bytes were split.
#[derive(Debug, Default)]
pub struct Machine {
    inbound: Inbound,
    head: Head,
    rules: Rules,
    events: Vec<Event>,
    raw: bool,
}

impl Machine {
    /// One that reads by these rules.
    pub fn new(rules: Rules) -> Self {
        Machine {
            rules,
            ..Machine::default()
        }
    }

    /// What was seen so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    fn add(&mut self, event: Event) {
        match (self.events.last_mut(), event) {
            (_, Event::Body(more) | Event::Raw(more)) if more.is_empty() => {}
            (Some(Event::Body(known)), Event::Body(more))
            | (Some(Event::Raw(known)), Event::Raw(more)) => known.extend(more),
            (_, event) => self.events.push(event),
        }
    }

    /// Takes more bytes.
    pub fn feed(&mut self, data: &[u8]) {
        if matches!(self.events.last(), Some(Event::Reject(_) | Event::Close)) {
            return;
        }
        if self.raw {
            self.add(Event::Raw(data.to_vec()));
            return;
        }
        if let Err(reject) = self.try_feed(data) {
            self.add(Event::Reject(reject));
        }
    }

    fn try_feed(&mut self, data: &[u8]) -> Result<(), Reject> {
        let mut fresh = data;
        if self.inbound.in_body() {
            self.inbound.feed(data);
            fresh = &[];
        }
        loop {
            while self.inbound.in_body() {
                let piece = self.inbound.body(usize::MAX, <[u8]>::to_vec)?;
                let stuck = piece.is_empty() && self.inbound.in_body();
                self.add(Event::Body(piece));
                if stuck {
                    return Ok(());
                }
                if !self.inbound.in_body() && self.end() {
                    return Ok(());
                }
            }
            let seen = self
                .inbound
                .head(fresh, &mut self.head, &self.rules, |head, bytes| {
                    (
                        bytes.to_vec(),
                        head.upgrade || head.method.of(bytes) == b"CONNECT",
                    )
                })?;
            fresh = &[];
            let Some((bytes, raw)) = seen else {
                return Ok(());
            };
            self.add(Event::Head(bytes));
            if raw {
                self.add(Event::End);
                self.raw = true;
                let rest = self.inbound.take_rest();
                self.add(Event::Raw(rest));
                return Ok(());
            }
            if !self.inbound.in_body() && self.end() {
                return Ok(());
            }
        }
    }

    /// A request is complete. Whether it was the last one.
    fn end(&mut self) -> bool {
        self.add(Event::End);
        if !self.head.keep_alive {
            self.add(Event::Close);
        }
        !self.head.keep_alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<Event> {
        let mut machine = Machine::default();
        for piece in pieces {
            machine.feed(piece);
        }
        machine.events
    }

    #[test]
    fn a_connection_is_a_list_of_events() {
        let seen = events(&[
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
            b"cGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ]);
        assert_eq!(seen.len(), 5);
        assert_eq!(seen[1..3], [Event::Body(b"abc".to_vec()), Event::End]);
        assert_eq!(seen[4], Event::End);
    }

    #[test]
    fn what_follows_an_upgrade_is_handed_over() {
        let seen = events(&[
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81",
            b"\x00",
        ]);
        assert_eq!(seen[2], Event::Raw(b"\x81\x00".to_vec()));
    }

    #[test]
    fn an_idle_connection_owns_no_buffer() {
        let mut inbound = Inbound::default();
        let (mut head, rules) = (Head::default(), Rules::default());
        let data = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!(inbound.is_idle());
        for piece in [&data[..9], &data[9..]] {
            let _ = inbound.head(piece, &mut head, &rules, |_, _| ()).unwrap();
        }
        assert!(inbound.is_idle());
        assert_eq!(inbound.buf.capacity(), 0);
    }
}
