//! [`BodyDecoder`]: a request's body out of the bytes that follow its head.

use crate::chars::{is_token, is_value, trim};
use crate::limits::{Limits, Policy};
use crate::reject::Reject;

/// How a body is delimited (RFC 9112 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// There is none.
    #[default]
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks, with trailers.
    Chunked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are left of a body with a length.
    Plain(u64),
    /// In the digits of a chunk's size.
    Size {
        digits: u8,
    },
    /// In extensions, or in spaces after the size, which only a `;` makes right.
    Extension(Extension),
    /// In extensions that are not looked at but for quotes.
    Loose {
        quoted: Quoted,
    },
    /// After the CR of the size's line.
    SizeEnd,
    /// In a chunk's bytes; so many are left.
    Data(u64),
    /// Before the CR after a chunk.
    DataCr,
    /// Before its LF.
    DataLf,
    /// In the trailer section.
    Trailers,
    Done,
    Failed(Reject),
}

/// Where in `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`, RFC 9112 §7.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    /// In space after the size.
    Before,
    /// Behind a `;`.
    Name,
    InName,
    /// In space after a name.
    AfterName,
    /// Behind a `=`.
    Value,
    InValue,
    InQuotes,
    /// Behind a backslash in quotes.
    Escape,
    /// A quoted value has ended.
    AfterQuotes,
    /// In space after a value.
    AfterValue,
}

impl Extension {
    /// What follows this with a byte that is no line end; `None`: it must not come.
    fn after(self, c: u8) -> Option<Self> {
        use Extension::*;
        let is_space = matches!(c, b' ' | b'\t');
        Some(match (self, c) {
            (Before | InName | AfterName | InValue | AfterQuotes | AfterValue, b';') => Name,
            (InName | AfterName, b'=') => Value,
            (Value, b'"') => InQuotes,
            (InQuotes, b'"') => AfterQuotes,
            (InQuotes, b'\\') => Escape,
            (InQuotes | Escape, c) if is_value(c) => InQuotes,
            (Before | Name | AfterName | Value | AfterValue, _) if is_space => self,
            (InName, _) if is_space => AfterName,
            (InValue | AfterQuotes, _) if is_space => AfterValue,
            (Name | InName, c) if is_token(c) => InName,
            (Value | InValue, c) if is_token(c) => InValue,
            _ => return None,
        })
    }

    /// Whether the line may end here.
    fn may_end(self) -> bool {
        use Extension::*;
        matches!(self, InName | InValue | AfterQuotes)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quoted {
    No,
    Yes,
    Escape,
}

/// More digits than this are no size, be they zeros.
const MOST_DIGITS: u8 = 64;

/// What a chunk's own bytes make up for in extensions: a size line of so many bytes is no burden.
const FREE_EXTENSION: u64 = 16;

/// Decodes one body. Wrong input is an error for ever.
#[derive(Debug, Clone)]
pub struct BodyDecoder {
    state: State,
    /// The size of the chunk that begins.
    size: u64,
    /// Bytes of the body that may still come.
    allowed: u64,
    /// Extension bytes that nothing made up for yet.
    burden: u64,
    extension: usize,
    trailers_limit: usize,
    trailers: Vec<u8>,
    /// Trailer fields that may still come.
    fields: usize,
    line: usize,
    /// The trailer's name is over.
    named: bool,
    policy: Policy,
}

/// One step of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are used up.
    pub consumed: usize,
    /// Bytes of the body: the last ones of what was consumed.
    pub body: usize,
}

impl BodyDecoder {
    /// For a body with this framing.
    pub fn new(framing: Framing, limits: &Limits, policy: Policy) -> Self {
        BodyDecoder {
            state: match framing {
                Framing::None | Framing::Length(0) => State::Done,
                Framing::Length(length) => State::Plain(length),
                Framing::Chunked => State::Size { digits: 0 },
            },
            size: 0,
            allowed: limits.body,
            burden: 0,
            extension: limits.extension,
            trailers_limit: limits.trailers,
            trailers: Vec::new(),
            fields: limits.headers,
            line: 0,
            named: false,
            policy,
        }
    }

    /// Whether the whole body was seen.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How many bytes are left of a body with a length; `None` for chunks.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Plain(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Bytes of the body that can come next without anything but body between: they may be read straight
    /// into their place, and [told](Self::advance).
    pub fn direct(&self) -> u64 {
        match self.state {
            State::Plain(left) | State::Data(left) => left,
            _ => 0,
        }
    }

    /// Says that `n` bytes, not more than [`direct`](Self::direct), went past the decoder.
    ///
    /// # Panics
    /// If there were fewer.
    pub fn advance(&mut self, n: u64) {
        assert!(n <= self.direct(), "more than the chunk has");
        match &mut self.state {
            State::Plain(left) => {
                *left -= n;
                if *left == 0 {
                    self.state = State::Done;
                }
            }
            State::Data(left) => {
                *left -= n;
                if *left == 0 {
                    self.state = State::DataCr;
                }
            }
            _ => {}
        }
    }

    /// The trailer fields, when the body is done: names and values, trimmed.
    pub fn trailers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.trailers
            .split(|&c| c == b'\n')
            .filter_map(|line| line.strip_suffix(b"\r"))
            .filter_map(|line| {
                let colon = memchr::memchr(b':', line)?;
                Some((&line[..colon], trim(&line[colon + 1..])))
            })
    }

    /// Takes one step: framing up to the next bytes of the body, and those. No step at all (0, 0) means that
    /// more input is needed, or that the body is done.
    ///
    /// # Errors
    /// What is wrong in the framing; again at each further call.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Reject> {
        self.step_at_most(input, usize::MAX)
    }

    /// As [`step`](Self::step), with no more than `most` bytes of the body, which is not 0.
    ///
    /// # Errors
    /// As `step`.
    pub fn step_at_most(&mut self, input: &[u8], most: usize) -> Result<Step, Reject> {
        if let State::Failed(reject) = self.state {
            return Err(reject);
        }
        let mut at = 0;
        while at < input.len() {
            let direct = self.direct();
            if direct > 0 {
                let body = usize::try_from(direct)
                    .unwrap_or(usize::MAX)
                    .min(input.len() - at)
                    .min(most);
                self.advance(body as u64);
                return Ok(Step {
                    consumed: at + body,
                    body,
                });
            }
            if self.state == State::Done {
                break;
            }
            if let Err(reject) = self.framing(input[at]) {
                self.state = State::Failed(reject);
                return Err(reject);
            }
            at += 1;
        }
        Ok(Step {
            consumed: at,
            body: 0,
        })
    }

    /// Takes all of `input` that belongs to the body; gives the bytes of it, and how many of the input were
    /// used up.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn feed(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<usize, Reject> {
        let mut at = 0;
        loop {
            let step = self.step(&input[at..])?;
            if step.consumed == 0 {
                return Ok(at);
            }
            at += step.consumed;
            body.extend_from_slice(&input[at - step.body..at]);
        }
    }

    /// One byte that is no body.
    fn framing(&mut self, c: u8) -> Result<(), Reject> {
        match self.state {
            State::Size { digits } => return self.size_digit(c, digits),
            State::Extension(at) => return self.extension_byte(c, at),
            State::Loose { quoted } => return self.loose_byte(c, quoted),
            State::SizeEnd => {
                if c != b'\n' {
                    return Err(Reject::bad("a chunk's size ends in a bare CR"));
                }
                return self.begin_chunk();
            }
            State::DataCr if c == b'\r' => self.state = State::DataLf,
            State::DataLf if c == b'\n' => self.state = State::Size { digits: 0 },
            State::DataCr | State::DataLf => {
                return Err(Reject::bad("a chunk is longer than its size"));
            }
            State::Trailers => return self.trailer_byte(c),
            State::Plain(_) | State::Data(_) | State::Done | State::Failed(_) => {}
        }
        Ok(())
    }

    fn size_digit(&mut self, c: u8, digits: u8) -> Result<(), Reject> {
        if let Some(value) = (c as char).to_digit(16) {
            if digits == 0 {
                self.size = 0;
            }
            if digits == MOST_DIGITS || self.size > u64::MAX >> 4 {
                return Err(Reject::bad("a chunk's size is too long"));
            }
            self.size = self.size << 4 | u64::from(value);
            self.state = State::Size { digits: digits + 1 };
            return Ok(());
        }
        if digits == 0 {
            return Err(Reject::bad("a chunk without a size"));
        }
        self.state = match c {
            b'\r' => State::SizeEnd,
            b';' if self.policy != Policy::Strict => State::Loose { quoted: Quoted::No },
            b';' => State::Extension(Extension::Name),
            b' ' | b'\t' => State::Extension(Extension::Before),
            _ => return Err(Reject::bad("a bad chunk size")),
        };
        Ok(())
    }

    fn extension_byte(&mut self, c: u8, at: Extension) -> Result<(), Reject> {
        self.count_extension()?;
        self.state = match at {
            _ if c == b'\r' && at.may_end() => State::SizeEnd,
            Extension::Before if c == b';' && self.policy != Policy::Strict => {
                State::Loose { quoted: Quoted::No }
            }
            _ => match at.after(c) {
                Some(next) => State::Extension(next),
                None if at == Extension::Before => {
                    return Err(Reject::bad("space after a chunk's size"));
                }
                None => return Err(Reject::bad("a bad chunk extension")),
            },
        };
        Ok(())
    }

    fn loose_byte(&mut self, c: u8, quoted: Quoted) -> Result<(), Reject> {
        self.count_extension()?;
        if c == b'\n' || !is_value(c) && c != b'\r' && self.policy < Policy::Compatible {
            return Err(Reject::bad("a control byte in a chunk extension"));
        }
        self.state = match (quoted, c) {
            (Quoted::No, b'\r') => State::SizeEnd,
            (_, b'\r') => return Err(Reject::bad("an open quote in a chunk extension")),
            (Quoted::No, b'"') | (Quoted::Escape, _) => State::Loose {
                quoted: Quoted::Yes,
            },
            (Quoted::Yes, b'"') => State::Loose { quoted: Quoted::No },
            (Quoted::Yes, b'\\') => State::Loose {
                quoted: Quoted::Escape,
            },
            (same, _) => State::Loose { quoted: same },
        };
        Ok(())
    }

    fn count_extension(&mut self) -> Result<(), Reject> {
        self.burden += 1;
        if self.burden > self.extension as u64 {
            return Err(Reject::bad("chunk extensions are too long"));
        }
        Ok(())
    }

    fn begin_chunk(&mut self) -> Result<(), Reject> {
        if self.size > self.allowed {
            return Err(Reject::new(413, "the body is too long"));
        }
        self.allowed -= self.size;
        self.burden = self
            .burden
            .saturating_sub(FREE_EXTENSION.saturating_add(self.size.saturating_mul(2)));
        self.state = match self.size {
            0 => State::Trailers,
            size => State::Data(size),
        };
        Ok(())
    }

    fn trailer_byte(&mut self, c: u8) -> Result<(), Reject> {
        if self.trailers.len() >= self.trailers_limit {
            return Err(Reject::new(431, "the trailers are too long"));
        }
        let line = &self.trailers[self.line..];
        let after_cr = line.last() == Some(&b'\r');
        if (c == b'\n') != after_cr {
            return Err(Reject::bad("a bad line end in the trailers"));
        }
        let in_name = !self.named;
        let right = match c {
            b'\r' => line.is_empty() || !in_name,
            b'\n' => true,
            b':' if in_name => !line.is_empty(),
            _ if in_name => is_token(c),
            _ => is_value(c),
        };
        if !right {
            return Err(Reject::bad("a bad trailer field"));
        }
        if c == b'\n' && line.len() == 1 {
            self.trailers.truncate(self.line);
            self.state = State::Done;
            return Ok(());
        }
        self.trailers.push(c);
        self.named |= c == b':';
        if c == b'\n' {
            if self.fields == 0 {
                return Err(Reject::new(431, "too many trailer fields"));
            }
            self.fields -= 1;
            self.line = self.trailers.len();
            self.named = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(data: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), Reject> {
        let mut decoder = BodyDecoder::new(Framing::Chunked, &Limits::default(), Policy::Strict);
        let (mut body, mut at) = (Vec::new(), 0);
        for piece in data.chunks(step) {
            let used = decoder.feed(piece, &mut body)?;
            at += used;
            if used < piece.len() {
                break;
            }
        }
        Ok((body, at, decoder.is_done()))
    }

    #[test]
    fn chunks_come_out_whole_however_they_came_in() {
        let data = b"2;a=\"b;\\\"c\"\r\noh\r\n4\r\n hai\r\n000\r\nA: b\r\n\r\nGET";
        for step in 1..data.len() {
            let (body, used, done) = decode(data, step).unwrap();
            assert_eq!(
                (body.as_slice(), used, done),
                (&b"oh hai"[..], data.len() - 3, true)
            );
        }
    }

    #[test]
    fn trailers_are_kept_apart() {
        let mut decoder = BodyDecoder::new(Framing::Chunked, &Limits::default(), Policy::Strict);
        let mut body = Vec::new();
        decoder
            .feed(b"0\r\nA: b \r\nC:\r\n\r\n", &mut body)
            .unwrap();
        let trailers: Vec<_> = decoder.trailers().collect();
        assert_eq!(trailers, [(&b"A"[..], &b"b"[..]), (b"C", b"")]);
    }

    #[test]
    fn what_is_wrong() {
        for (data, status) in [
            (&b"\r\n"[..], 400),
            (b"x\r\n", 400),
            (b"+1\r\n", 400),
            (b"0x1\r\n", 400),
            (b"1 \r\n", 400),
            (b"1\n", 400),
            (b"1\rx", 400),
            (b"1\r\nab", 400),
            (b"1\r\na\n", 400),
            (b"11111111111111111\r\n", 400),
            (b"1;a=\0\r\n", 400),
            (b"1;\r\n", 400),
            (b"1; \r\n", 400),
            (b"1;a=\r\n", 400),
            (b"1;=b\r\n", 400),
            (b"1;a;\r\n", 400),
            (b"1;;a\r\n", 400),
            (b"1;a b\r\n", 400),
            (b"1;a=b c\r\n", 400),
            (b"1;a=b \r\n", 400),
            (b"1;a=\"b\"c\r\n", 400),
            (b"1;a=b=c\r\n", 400),
            (b"1;\"a\"\r\n", 400),
            (b"1;a=\"\0\"\r\n", 400),
            (b"1;a=\"\\\0\"\r\n", 400),
            (b"1;a\n", 400),
            (b"1;a=\"b\r\n", 400),
            (b"0\r\nA\r\n", 400),
            (b"0\r\n b\r\n", 400),
            (b"0\r\nA : b\r\n", 400),
            (b"0\r\nA: b\n", 400),
            (b"0\r\nA: b\rc", 400),
            (b"0\r\n: b\r\n", 400),
            (b"0\r\n\n", 400),
        ] {
            assert_eq!(decode(data, 1).unwrap_err().status, status, "{data:?}");
            assert_eq!(decode(data, 99).unwrap_err().status, status, "{data:?}");
        }
    }

    #[test]
    fn what_the_grammar_of_sizes_allows() {
        let zeros = [b"0".repeat(48), b"1".to_vec()].concat();
        for size in [
            &b"1"[..],
            b"01",
            &zeros,
            b"1;a",
            b"1;a;b",
            b"1;a=b",
            b"1 ; a = b;c",
            b"1\t;a=\"\"",
            b"1;a=\"; =\\\"\xff\" ;c=d",
        ] {
            let data = [size, b"\r\nx\r\n0\r\n\r\n"].concat();
            let (body, _, done) = decode(&data, 1).unwrap();
            assert_eq!((body.as_slice(), done), (&b"x"[..], true), "{size:?}");
        }
        let last = [b"0".repeat(40), b"\r\n\r\n".to_vec()].concat();
        assert!(decode(&last, 1).unwrap().2);
        assert!(decode(&[b"0".repeat(65), b"\r\n".to_vec()].concat(), 9).is_err());
    }

    #[test]
    fn how_much_less_strict_the_policies_are() {
        let extension = |extension: &[u8], policy| {
            let data = [b"1", extension, b"\r\nx\r\n"].concat();
            let mut decoder = BodyDecoder::new(Framing::Chunked, &Limits::default(), policy);
            decoder.feed(&data, &mut Vec::new()).is_ok()
        };
        for odd in [&b";"[..], b";a=", b";=b", b" ;;", b";a b"] {
            assert!(!extension(odd, Policy::Strict), "{odd:?}");
            assert!(extension(odd, Policy::Tolerant), "{odd:?}");
        }
        assert!(!extension(b";a=\0", Policy::Tolerant));
        assert!(extension(b";a=\0", Policy::Compatible));
    }

    #[test]
    fn trailer_fields_are_counted() {
        let limits = Limits {
            headers: 3,
            ..Limits::default()
        };
        let decode = |fields: usize| {
            let data = [
                b"0\r\n".to_vec(),
                b"A: b\r\n".repeat(fields),
                b"\r\n".to_vec(),
            ]
            .concat();
            let mut decoder = BodyDecoder::new(Framing::Chunked, &limits, Policy::Strict);
            decoder
                .feed(&data, &mut Vec::new())
                .map(|_| decoder.is_done())
        };
        assert_eq!(decode(3), Ok(true));
        assert_eq!(decode(4).unwrap_err().status, 431);
    }

    #[test]
    fn limits_hold() {
        let limits = Limits {
            body: 5,
            ..Limits::default()
        };
        let mut decoder = BodyDecoder::new(Framing::Chunked, &limits, Policy::Strict);
        let mut body = Vec::new();
        assert!(decoder.feed(b"5\r\nhello\r\n", &mut body).is_ok());
        assert_eq!(decoder.feed(b"1\r\n", &mut body).unwrap_err().status, 413);
        assert_eq!(decoder.feed(b"", &mut body).unwrap_err().status, 413);
        let long = [b"1;".as_slice(), &[b'a'; 9000], b"\r\n"].concat();
        assert!(decode(&long, 100).is_err());
        let many = b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(1000);
        assert!(decode(&many, 100).is_err(), "many small extensions add up");
        let fair = [
            b"400;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".as_slice(),
            &[b'x'; 1024],
            b"\r\n",
        ]
        .concat();
        assert!(decode(&fair.repeat(1000), 1000).is_ok());
        let long = [b"0\r\nA: ".as_slice(), &[b'a'; 9000]].concat();
        assert!(decode(&long, 100).is_err());
    }

    #[test]
    fn a_length_is_a_length() {
        let mut decoder = BodyDecoder::new(Framing::Length(3), &Limits::default(), Policy::Strict);
        let mut body = Vec::new();
        assert_eq!(decoder.feed(b"ab", &mut body), Ok(2));
        assert_eq!(decoder.left(), Some(1));
        assert_eq!(decoder.feed(b"cd", &mut body), Ok(1));
        assert!(decoder.is_done());
        assert_eq!(body, b"abc");
    }
}
