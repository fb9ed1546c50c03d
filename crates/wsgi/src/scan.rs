//! [`HeadScanner`]: finds where a head ends in bytes that come piece by piece, looking at each byte once.

use crate::head;
use crate::limits::Limits;
use crate::reject::Reject;
use memchr::memchr;

/// Blank lines before a request line that are overlooked (RFC 9112 §2.2 asks for one at least).
const BLANK_LINES: u8 = 2;

/// How far the head at the front of a buffer was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeadScanner {
    /// Where the request line begins: after blank lines.
    start: u32,
    /// Where the line begins that has no end yet.
    line: u32,
    /// Bytes that were looked at.
    at: u32,
    /// Where the request line ends; 0 before it does.
    request_line: u32,
    blank: u8,
    checked: bool,
}

impl HeadScanner {
    /// Whether nothing of a request was seen: no byte, or blank lines alone.
    pub fn is_empty(&self) -> bool {
        self.start == self.at
    }

    /// Looks at what is new in `buf`, which begins where it began the last time. Gives where the head begins
    /// and ends when its blank line is there. What it says does not depend on how the bytes were split.
    ///
    /// # Errors
    /// A line that does not end in CRLF, a request line that cannot become right, and what is too long.
    pub fn scan(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<(usize, usize)>, Reject> {
        match self.go_on(buf, limits) {
            Ok(Some(found)) => Ok(Some(found)),
            // More may never come, and what came first is judged first: what is wrong already is said now.
            other => {
                self.check_request_line(buf)?;
                other
            }
        }
    }

    fn go_on(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<(usize, usize)>, Reject> {
        loop {
            let from = self.at as usize;
            let line = self.line as usize;
            let Some(found) = memchr(b'\n', &buf[from..]) else {
                self.check_length(buf.len(), limits)?;
                self.at = u32::try_from(buf.len()).map_err(|_| TOO_LONG)?;
                return Ok(None);
            };
            let end = from + found;
            self.check_length(end, limits)?;
            if end == line || buf[end - 1] != b'\r' {
                return Err(Reject::bad("a line ends in a bare LF"));
            }
            self.at = u32::try_from(end + 1).map_err(|_| TOO_LONG)?;
            self.line = self.at;
            if end - 1 > line {
                if self.request_line == 0 {
                    self.request_line = self.at;
                }
            } else if self.request_line != 0 {
                return Ok(Some((self.start as usize, end + 1)));
            } else {
                self.blank += 1;
                if self.blank > BLANK_LINES {
                    return Err(Reject::bad("blank lines in front of a request"));
                }
                self.start = self.at;
            }
        }
    }

    fn check_request_line(&mut self, buf: &[u8]) -> Result<(), Reject> {
        if self.request_line != 0 && !self.checked {
            self.checked = true;
            head::check_request_line(&buf[self.start as usize..self.request_line as usize])?;
        }
        Ok(())
    }

    /// `seen`: up to before the line's LF.
    fn check_length(&self, seen: usize, limits: &Limits) -> Result<(), Reject> {
        if self.request_line == 0 && seen - self.line as usize > limits.line + 1 {
            return Err(LINE_TOO_LONG);
        }
        if seen - self.start as usize > limits.head {
            return Err(TOO_LONG);
        }
        Ok(())
    }
}

const TOO_LONG: Reject = Reject::new(431, "the head is too long");
const LINE_TOO_LONG: Reject = Reject::new(414, "the request line is too long");

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nmore";

    #[test]
    fn finds_the_end_however_the_bytes_come() {
        let limits = Limits::default();
        for step in 1..HEAD.len() {
            let mut scan = HeadScanner::default();
            let mut seen = 0;
            let found = loop {
                seen = (seen + step).min(HEAD.len());
                if let Some(found) = scan.scan(&HEAD[..seen], &limits).unwrap() {
                    break found;
                }
                assert!(seen < HEAD.len());
            };
            assert_eq!(found, (2, HEAD.len() - 4));
        }
    }

    #[test]
    fn says_early_what_is_wrong() {
        let limits = Limits::default();
        let first = |data: &[u8]| HeadScanner::default().scan(data, &limits);
        assert_eq!(first(b"GET / HTTP %\r\n").unwrap_err().status, 400);
        assert_eq!(first(b"GET / HTTP/1.1\nHost: a").unwrap_err().status, 400);
        assert_eq!(first(&[b'x'; 9000]).unwrap_err().status, 414);
        assert_eq!(first(b"\r\n\r\n\r\n").unwrap_err().status, 400);
        assert_eq!(first(b"GET / HTTP/2.0\r\n").unwrap_err().status, 505);
        assert!(first(b"GET / HTT").unwrap().is_none());
    }

    #[test]
    fn a_head_may_not_grow_for_ever() {
        let limits = Limits {
            head: 100,
            ..Limits::default()
        };
        let mut data = b"GET / HTTP/1.1\r\n".to_vec();
        data.extend(b"a: b\r\n".repeat(20));
        let mut scan = HeadScanner::default();
        assert_eq!(scan.scan(&data, &limits).unwrap_err().status, 431);
    }
}
