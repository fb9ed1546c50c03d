//! [`Head`]: one request head, parsed and judged: which framing its body has, whether the connection goes on.

use crate::body::Framing;
use crate::chars::{is_token, list};
use crate::limits::{Limits, Policy};
use crate::reject::Reject;
use crate::target::{self, Form};
use std::borrow::Cow;
use std::mem::MaybeUninit;

/// A range of the head's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// From `start` to before `end`; heads are far shorter than 4 GiB.
    pub fn new(start: usize, end: usize) -> Self {
        Span {
            start: start as u32,
            end: end as u32,
        }
    }

    /// Where it begins.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Where it ends.
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// Its bytes in the head.
    #[inline]
    pub fn of(self, head: &[u8]) -> &[u8] {
        &head[self.start as usize..self.end as usize]
    }

    fn within(self, inner: Span) -> Span {
        Span {
            start: self.start + inner.start,
            end: self.start + inner.end,
        }
    }
}

/// One header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// A token.
    pub name: Span,
    /// Without space around it.
    pub value: Span,
}

/// The two versions that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// A request head. Its spans are of the bytes that it was parsed from. Meant to be used again: parsing
/// allocates only when there are more fields than ever before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The method, a token.
    pub method: Span,
    /// The target as it was sent.
    pub target: Span,
    /// The form of the target.
    pub form: Form,
    /// The version.
    pub version: Version,
    /// The fields, in their order.
    pub fields: Vec<Field>,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the connection may carry another request, as far as the client is concerned.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// Whether the client asks for another protocol (not h2c, which no server of WSGI speaks): what follows a 101
    /// is not HTTP. That takes an Upgrade field and `Connection: upgrade` (RFC 9110 §7.8), but from
    /// [`Policy::Compatible`] on one of them is enough.
    pub upgrade: bool,
    /// Whether a field's name has an underscore: such fields are not for CGI names.
    pub has_underscores: bool,
    /// Where the fields begin: after the request line.
    pub block: u32,
}

impl Default for Head {
    fn default() -> Self {
        Head {
            method: Span::default(),
            target: Span::default(),
            form: Form::Origin,
            version: Version::Http11,
            fields: Vec::new(),
            framing: Framing::None,
            keep_alive: true,
            expect_continue: false,
            upgrade: false,
            has_underscores: false,
            block: 0,
        }
    }
}

/// More fields than this are refused whatever the limit says.
const MOST_FIELDS: usize = 256;

impl Head {
    /// Parses a whole head: from the request line through the blank line, nothing before or after.
    ///
    /// # Errors
    /// Whatever is not plainly right.
    pub fn parse(&mut self, data: &[u8], limits: &Limits, policy: Policy) -> Result<(), Reject> {
        let mut fields = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MOST_FIELDS];
        let room = limits.headers.min(MOST_FIELDS);
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(data, &mut fields[..room]);
        match parsed {
            Ok(httparse::Status::Complete(length)) if length == data.len() => {}
            Ok(httparse::Status::Complete(_)) => return Err(Reject::bad("bytes after the head")),
            Ok(httparse::Status::Partial) => return Err(Reject::bad("the head is not complete")),
            Err(httparse::Error::Version) if let Some(minor) = higher_minor(data) => {
                return self.parse_as_11(data, minor, limits, policy);
            }
            Err(error) => return Err(refused(data, error)),
        }
        let span = |s: &[u8]| {
            let start = s.as_ptr().addr() - data.as_ptr().addr();
            Span::new(start, start + s.len())
        };
        self.method = span(request.method.unwrap_or_default().as_bytes());
        self.target = span(request.path.unwrap_or_default().as_bytes());
        if self.target.end() - self.method.start() + " HTTP/1.1".len() > limits.line {
            return Err(Reject::new(414, "the request line is too long"));
        }
        self.version = match request.version {
            Some(0) => Version::Http10,
            _ => Version::Http11,
        };
        self.block = (self.target.end() + " HTTP/1.1\r\n".len()) as u32;
        self.form = target::form(self.method.of(data), self.target.of(data))?;
        self.fields.clear();
        let spans = request.headers.iter().map(|h| Field {
            name: span(h.name.as_bytes()),
            value: span(h.value),
        });
        self.fields.extend(spans);
        self.check_line_ends(data)?;
        self.judge(data, limits, policy)
    }

    /// Parses a head of a higher minor version, whose digit is at `minor`, as the highest that is spoken
    /// (RFC 9110 §2.5). The places of all parts are the same.
    #[cold]
    #[inline(never)]
    fn parse_as_11(
        &mut self,
        data: &[u8],
        minor: usize,
        limits: &Limits,
        policy: Policy,
    ) -> Result<(), Reject> {
        let mut known = data.to_vec();
        known[minor] = b'1';
        self.parse(&known, limits, policy)
    }

    /// The parts of the target that a server of WSGI looks at: the path and the query as they were sent, and
    /// the authority of a target that has one.
    pub fn path<'a>(&self, data: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let whole = match self.form {
            Form::Absolute { rest, .. } => self.target.within(rest).of(data),
            _ => self.target.of(data),
        };
        let (path, query) = match memchr::memchr(b'?', whole) {
            Some(at) => (&whole[..at], &whole[at + 1..]),
            None => (whole, &whole[..0]),
        };
        let is_absolute = matches!(self.form, Form::Absolute { .. });
        (
            if is_absolute && path.is_empty() {
                b"/"
            } else {
                path
            },
            query,
        )
    }

    /// The authority in an absolute target, which overrides the Host field (RFC 9112 §3.2.2).
    pub fn authority<'a>(&self, data: &'a [u8]) -> Option<&'a [u8]> {
        match self.form {
            Form::Absolute { authority, .. } => Some(self.target.within(authority).of(data)),
            _ => None,
        }
    }

    /// httparse takes a bare LF for a line's end; nothing here does.
    fn check_line_ends(&self, data: &[u8]) -> Result<(), Reject> {
        const BARE: Reject = Reject::bad("a line ends in a bare LF");
        let block = self.block as usize;
        if data.get(block - 2..block) != Some(b"\r\n")
            || !data.ends_with(b"\r\n\r\n") && !self.fields.is_empty()
        {
            return Err(BARE);
        }
        let mut from = block;
        for field in &self.fields {
            // Every field begins where a line begins, so each line's end is in front of the next field.
            if field.name.start() != from {
                return Err(BARE);
            }
            let Some(end) = memchr::memchr(b'\n', &data[field.value.end()..]) else {
                return Err(BARE);
            };
            from = field.value.end() + end + 1;
            if data[from - 2] != b'\r' {
                return Err(BARE);
            }
        }
        match &data[from..] {
            b"\r\n" => Ok(()),
            _ => Err(BARE),
        }
    }

    fn judge(&mut self, data: &[u8], limits: &Limits, policy: Policy) -> Result<(), Reject> {
        let mut seen = Seen::default();
        self.has_underscores = false;
        for field in &self.fields {
            seen.look_at(field.name.of(data), field.value.of(data))?;
            self.has_underscores |= memchr::memchr(b'_', field.name.of(data)).is_some();
        }
        if self.has_underscores {
            self.check_shadows(data)?;
        }
        let is_11 = self.version == Version::Http11;
        if is_11 && !seen.host && policy == Policy::Strict {
            return Err(Reject::bad("HTTP/1.1 without a Host field"));
        }
        // What follows a CONNECT is a tunnel, or was meant for one.
        let ends = seen.close || self.form == Form::Authority;
        self.keep_alive = !ends && (is_11 || seen.keep_alive);
        self.framing = match (seen.coding, seen.length) {
            (None, None) => Framing::None,
            (None, Some(0)) => Framing::Length(0),
            (None, Some(length)) => {
                if self.method.of(data) == b"HEAD" {
                    return Err(Reject::bad("HEAD with a body"));
                }
                if length > limits.body {
                    return Err(Reject::new(413, "the body is too long"));
                }
                Framing::Length(length)
            }
            (Some(_), Some(_)) if !policy.takes_two_lengths(seen.host) => {
                return Err(Reject::bad("Transfer-Encoding and Content-Length"));
            }
            (Some(()), _) if !is_11 => {
                return Err(Reject::bad("Transfer-Encoding in HTTP/1.0"));
            }
            (Some(()), _) => Framing::Chunked,
        };
        let has_body = !matches!(self.framing, Framing::None | Framing::Length(0));
        self.expect_continue = is_11 && seen.expect && has_body;
        self.upgrade = is_11
            && !has_body
            && match policy {
                Policy::Strict | Policy::Tolerant => seen.connection_upgrade && seen.upgrade,
                _ => seen.connection_upgrade && (seen.upgrade || !seen.h2c) || seen.websocket,
            };
        Ok(())
    }

    /// A field such as `X_Auth` becomes the same CGI name as `X-Auth`: together they are an attempt to get
    /// past whoever checked the other one. Alone it is left out of the environ, as upstream does.
    fn check_shadows(&self, data: &[u8]) -> Result<(), Reject> {
        const SHADOW: Reject = Reject::bad("a field name shadows another one by an underscore");
        let same = |a: &[u8], b: &[u8]| {
            let fold = |c: u8| {
                if c == b'_' {
                    b'-'
                } else {
                    c.to_ascii_lowercase()
                }
            };
            a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| fold(a) == fold(b))
        };
        for (i, field) in self.fields.iter().enumerate() {
            let name = field.name.of(data);
            if !name.contains(&b'_') {
                continue;
            }
            if FRAMING_NAMES.iter().any(|framing| same(name, framing)) {
                return Err(SHADOW);
            }
            let shadows = |(j, other): (usize, &Field)| {
                let other = other.name.of(data);
                i != j && same(name, other) && !name.eq_ignore_ascii_case(other)
            };
            if self.fields.iter().enumerate().any(shadows) {
                return Err(SHADOW);
            }
        }
        Ok(())
    }
}

/// Fields that decide about the message itself.
const FRAMING_NAMES: [&[u8]; 4] = [
    b"content-length",
    b"transfer-encoding",
    b"content-type",
    b"host",
];

/// What the fields that matter for the connection said.
#[derive(Default)]
struct Seen {
    host: bool,
    length: Option<u64>,
    coding: Option<()>,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    /// To something else than h2c.
    upgrade: bool,
    websocket: bool,
    h2c: bool,
    expect: bool,
}

impl Seen {
    #[inline]
    fn look_at(&mut self, name: &[u8], value: &[u8]) -> Result<(), Reject> {
        // By length first: most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.host {
                    return Err(Reject::bad("more than one Host field"));
                }
                if !target::is_host(value) {
                    return Err(Reject::bad("a bad Host field"));
                }
                self.host = true;
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Reject::new(417, "an unknown expectation"));
                }
                self.expect = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.look_at_upgrade(value);
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err(Reject::bad("more than one Content-Length"));
                }
                self.length = Some(length(value)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.coding.is_some() {
                    return Err(Reject::bad("more than one Transfer-Encoding"));
                }
                coding(value)?;
                self.coding = Some(());
            }
            _ => {}
        }
        Ok(())
    }
}

impl Seen {
    #[cold]
    #[inline(never)]
    fn look_at_upgrade(&mut self, value: &[u8]) {
        for protocol in list(value) {
            let is_h2c = protocol.eq_ignore_ascii_case(b"h2c");
            self.h2c |= is_h2c;
            self.upgrade |= !is_h2c;
            self.websocket |= protocol.eq_ignore_ascii_case(b"websocket");
        }
    }
}

/// A Content-Length: digits and nothing else (RFC 9110 §8.6).
fn length(value: &[u8]) -> Result<u64, Reject> {
    const BAD: Reject = Reject::bad("a bad Content-Length");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    std::str::from_utf8(value)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(BAD)
}

/// A Transfer-Encoding: `chunked`, once and last, is the one that is known. Empty members of the list count for
/// nothing (RFC 9110 §5.6.1).
fn coding(value: &[u8]) -> Result<(), Reject> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut last_is_chunked = false;
    let mut chunked = 0;
    let mut members = 0;
    for member in list(value) {
        if !member.iter().all(|&c| is_token(c)) {
            return Err(Reject::bad("a bad Transfer-Encoding"));
        }
        members += 1;
        last_is_chunked = member.eq_ignore_ascii_case(b"chunked");
        chunked += usize::from(last_is_chunked);
    }
    match (chunked, last_is_chunked) {
        _ if members == 0 => Err(Reject::bad("a bad Transfer-Encoding")),
        (1, true) if members == 1 => Ok(()),
        (0, _) | (1, true) => Err(Reject::new(501, "an unknown transfer coding")),
        _ => Err(Reject::bad("chunked is not the one final coding")),
    }
}

/// Judges a request line, with its line end, before the rest of the head is there.
///
/// # Errors
/// As [`Head::parse`].
pub fn check_request_line(line: &[u8]) -> Result<(), Reject> {
    match httparse::Request::new(&mut []).parse(line) {
        Ok(_) => Ok(()),
        Err(httparse::Error::Version) if higher_minor(line).is_some() => Ok(()),
        Err(error) => Err(refused(line, error)),
    }
}

/// Puts httparse's complaint into a status.
fn refused(data: &[u8], error: httparse::Error) -> Reject {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => Reject::new(431, "too many header fields"),
        Error::Version if is_other_version(data) => {
            Reject::new(505, "a version of HTTP other than 1.0 and 1.1")
        }
        Error::Version => Reject::bad("a bad version"),
        Error::HeaderName => Reject::bad("a bad field name"),
        Error::HeaderValue => Reject::bad("a bad field value"),
        Error::NewLine => Reject::bad("a bad line end"),
        Error::Token | Error::Status => Reject::bad("a bad request line"),
    }
}

/// The digits of the request line's version, if that is well-formed, and where it ends.
fn version(data: &[u8]) -> Option<(u8, u8, usize)> {
    let end = memchr::memchr(b'\r', data).unwrap_or(data.len());
    let mut words = data[..end].split(|&c| c == b' ');
    let version = match (words.next(), words.next(), words.next(), words.next()) {
        (Some(_), Some(_), Some(version), None) => version,
        _ => return None,
    };
    match version {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            major @ b'0'..=b'9',
            b'.',
            minor @ b'0'..=b'9',
        ] => Some((*major, *minor, end)),
        _ => None,
    }
}

/// Whether the request line ends in a well-formed version, which then is none of ours.
fn is_other_version(data: &[u8]) -> bool {
    version(data).is_some()
}

/// Where the minor digit of a version 1.2 to 1.9 stands.
#[cold]
fn higher_minor(data: &[u8]) -> Option<usize> {
    match version(data)? {
        (b'1', b'2'..=b'9', end) => Some(end - 1),
        _ => None,
    }
}

/// The head with each folded line joined to the one before it by spaces (RFC 9112 §5.2), which keeps its
/// length. What has no folded line is given back as it is.
pub fn unfold(data: &[u8]) -> Cow<'_, [u8]> {
    let folded = |at: &usize| matches!(data.get(at + 2), Some(b' ' | b'\t'));
    let mut folds = memchr::memmem::find_iter(data, b"\r\n")
        .skip(1)
        .filter(folded);
    let Some(first) = folds.next() else {
        return Cow::Borrowed(data);
    };
    let mut copy = data.to_vec();
    for at in std::iter::once(first).chain(folds) {
        copy[at..at + 2].fill(b' ');
    }
    Cow::Owned(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(data: &str) -> Result<Head, Reject> {
        let mut head = Head::default();
        head.parse(data.as_bytes(), &Limits::default(), Policy::Strict)?;
        Ok(head)
    }

    #[test]
    fn a_plain_head() {
        let data = "POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length:  5 \r\nA:\r\n\r\n";
        let head = parse(data).unwrap();
        let bytes = data.as_bytes();
        assert_eq!(head.method.of(bytes), b"POST");
        assert_eq!(head.path(bytes), (&b"/a"[..], &b"b"[..]));
        assert_eq!(head.framing, Framing::Length(5));
        assert!(head.keep_alive);
        let last = head.fields[2];
        assert_eq!(
            (last.name.of(bytes), last.value.of(bytes)),
            (&b"A"[..], &b""[..])
        );
        assert!(bytes[head.block as usize..].starts_with(b"Host"));
    }

    #[test]
    fn connections() {
        let keeps = |rest: &str| parse(&format!("GET / {rest}\r\n\r\n")).unwrap().keep_alive;
        assert!(keeps("HTTP/1.1\r\nHost: a"));
        assert!(!keeps("HTTP/1.1\r\nHost: a\r\nConnection: x, Close"));
        assert!(!keeps("HTTP/1.0"));
        let connect = parse("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n").unwrap();
        assert!(!connect.keep_alive);
        assert!(keeps("HTTP/1.0\r\nConnection: keep-alive"));
        assert!(!keeps("HTTP/1.0\r\nConnection: keep-alive, close"));
        let upgrades = |rest: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{rest}\r\n\r\n");
            parse(&head).unwrap().upgrade
        };
        assert!(upgrades("Connection: Upgrade\r\nUpgrade: websocket"));
        assert!(upgrades("Upgrade: h2c, other/2\r\nConnection: x, UPGRADE"));
        for less in [
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Connection: Upgrade\r\nUpgrade:",
            "Connection: Upgrade\r\nUpgrade: ,",
            "Connection: close\r\nUpgrade: websocket",
        ] {
            assert!(!upgrades(less), "{less}");
        }
        assert!(!upgrades(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c"
        ));
        assert!(!upgrades(
            "Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 3"
        ));
    }

    #[test]
    fn upgrades_as_upstream_sees_them() {
        let mut head = Head::default();
        for (fields, upgrades) in [
            ("Connection: Upgrade", true),
            ("Upgrade: websocket", true),
            ("Upgrade: other", false),
            ("Connection: Upgrade\r\nUpgrade: h2c", false),
        ] {
            let data = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
            let limits = Limits::default();
            for (policy, upgrades) in [(Policy::Tolerant, false), (Policy::Compatible, upgrades)] {
                head.parse(data.as_bytes(), &limits, policy).unwrap();
                assert_eq!(head.upgrade, upgrades, "{fields}");
            }
        }
    }

    #[test]
    fn a_higher_minor_version_is_read_as_1_1() {
        let data = "GET /a HTTP/1.7\r\nHost: x\r\nContent-Length: 2\r\n\r\n";
        let head = parse(data).unwrap();
        assert_eq!(head.version, Version::Http11);
        assert_eq!(head.target.of(data.as_bytes()), b"/a");
        assert!(head.keep_alive);
        assert!(check_request_line(b"GET / HTTP/1.2\r\n").is_ok());
        for (version, status) in [("2.0", 505), ("0.9", 505), ("1.10", 400), ("1.x", 400)] {
            let refused = parse(&format!("GET / HTTP/{version}\r\nHost: x\r\n\r\n"));
            assert_eq!(refused.unwrap_err().status, status, "{version}");
        }
        // What is wrong besides is found all the same.
        assert!(parse("GET / HTTP/1.2\r\nHost : x\r\n\r\n").is_err());
        assert!(parse("GET / HTTP/1.2\r\n\r\n").is_err());
    }

    #[test]
    fn empty_members_of_a_transfer_encoding_are_ignored() {
        let framing = |value: &str| {
            let fields = format!("Host: a\r\nTransfer-Encoding: {value}");
            parse(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n")).map(|head| head.framing)
        };
        for value in [",chunked", "chunked,", ", ,\t, Chunked , ,"] {
            assert_eq!(framing(value), Ok(Framing::Chunked), "{value}");
        }
        for (value, status) in [
            ("", 400),
            (",", 400),
            ("chunked, chunked", 400),
            ("chunked,,gzip", 400),
            (",gzip,,chunked", 501),
            ("identity", 501),
            ("chunked;a=b", 400),
            ("\u{b}chunked", 400),
        ] {
            assert_eq!(framing(value).unwrap_err().status, status, "{value}");
        }
    }

    #[test]
    fn absolute_targets_bring_their_own_host() {
        let data = "GET http://b:8/?q HTTP/1.1\r\nHost: a\r\n\r\n";
        let head = parse(data).unwrap();
        assert_eq!(head.authority(data.as_bytes()), Some(&b"b:8"[..]));
        assert_eq!(head.path(data.as_bytes()), (&b"/"[..], &b"q"[..]));
        let data = "GET http://b HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(parse(data).unwrap().path(data.as_bytes()).0, b"/");
    }

    #[test]
    fn upstreams_leniency_is_asked_for() {
        let both = b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: Chunked\r\n\r\n";
        let mut head = Head::default();
        let limits = Limits::default();
        assert!(head.parse(both, &limits, Policy::Strict).is_err());
        for policy in [Policy::Tolerant, Policy::Upstream] {
            head.parse(both, &limits, policy).unwrap();
            assert_eq!(head.framing, Framing::Chunked);
        }
        let proxied = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(head.parse(proxied, &limits, Policy::Tolerant).is_err());
        head.parse(proxied, &limits, Policy::Upstream).unwrap();
        let folded = b"GET / HTTP/1.0\r\nA: b\r\n c\r\n\td\r\n\r\n";
        assert!(head.parse(folded, &limits, Policy::Upstream).is_err());
        let data = unfold(folded);
        head.parse(&data, &limits, Policy::Upstream).unwrap();
        assert_eq!(head.fields[0].value.of(&data), b"b   c  \td");
        assert!(matches!(unfold(both), Cow::Borrowed(_)));
    }
}
