//! The head of a response: checks what a handler asks for, and adds the fields of framing and connection
//! (RFC 9110 §6, §8.6, §15; RFC 9112 §6, §9).

use crate::answer;
use crate::chars::list;
use crate::server::Error;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use std::io::Write;

/// What the head depends on besides the handler's wishes.
#[derive(Clone, Copy)]
pub(super) struct Circumstances {
    /// The request is HTTP/1.1 and not older.
    pub is_11: bool,
    /// The request's method is HEAD: the response ends with its head.
    pub is_head: bool,
    /// Another request may follow on the connection.
    pub keeps_alive: bool,
}

/// How the body after a head is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none, whatever the handler sends: HEAD, 204 and 304.
    Bodiless,
    /// So many bytes are still to come.
    Length(u64),
    /// It comes in chunks.
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

/// A head that may be sent.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub bytes: Vec<u8>,
    pub framing: Framing,
    /// The head says that the connection closes.
    pub closes: bool,
}

/// The fields of the handler that decide about framing and connection.
#[derive(Default)]
struct Declared {
    length: Option<u64>,
    date: bool,
    closes: bool,
}

fn refused(why: &'static str) -> Error {
    Error::Response(why)
}

impl ResponseHead {
    /// The head for `status` and `fields`. `length` is that of the body if it is known.
    ///
    /// # Errors
    /// [`Error::Response`] for a status below 200 or above 999, a field that is no field (a name that is no token,
    /// CR, LF or NUL in a value), a Transfer-Encoding, and a Content-Length that is no number or not that of the
    /// body.
    pub(super) fn new(
        around: Circumstances,
        status: u16,
        fields: &[(&str, &str)],
        length: Option<usize>,
    ) -> Result<Self, Error> {
        let status = StatusCode::from_u16(status)
            .ok()
            .filter(|status| !status.is_informational())
            .ok_or(refused("a final status is a number from 200 to 999"))?;
        let mut bytes = Vec::with_capacity(256);
        let phrase = status.canonical_reason().unwrap_or("");
        let _ = write!(bytes, "HTTP/1.1 {} {phrase}\r\n", status.as_u16());
        let declared = push_fields(&mut bytes, fields)?;
        let framing = frame(around, status, declared.length, length, &mut bytes)?;
        let closes = declared.closes || !around.keeps_alive || framing == Framing::UntilClose;
        if closes {
            bytes.extend_from_slice(b"Connection: close\r\n");
        } else if !around.is_11 {
            bytes.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        if !declared.date {
            bytes.extend_from_slice(b"Date: ");
            bytes.extend_from_slice(&answer::http_date());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        Ok(ResponseHead {
            bytes,
            framing,
            closes,
        })
    }
}

/// Whether a response to `method` with `status` ends with its head.
fn is_bodiless(around: Circumstances, status: StatusCode) -> bool {
    around.is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Appends the handler's fields, but for those that [`frame`] and the end of the head write themselves.
fn push_fields(bytes: &mut Vec<u8>, fields: &[(&str, &str)]) -> Result<Declared, Error> {
    let mut declared = Declared::default();
    for (name, value) in fields {
        let known = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| refused("a field's name is not a token"))?;
        HeaderValue::from_str(value)
            .map_err(|_| refused("a field's value has a character that is not allowed"))?;
        match known {
            header::TRANSFER_ENCODING => {
                return Err(refused("the server frames the body: no Transfer-Encoding"));
            }
            header::CONTENT_LENGTH => {
                let number = parse_length(value)?;
                if declared.length.is_some_and(|before| before != number) {
                    return Err(refused("two different Content-Lengths"));
                }
                declared.length = Some(number);
                continue;
            }
            header::CONNECTION => {
                let others = list(value.as_bytes()).filter(|member| {
                    let closes = member.eq_ignore_ascii_case(b"close");
                    declared.closes |= closes;
                    !closes && !member.eq_ignore_ascii_case(b"keep-alive")
                });
                for member in others {
                    bytes.extend_from_slice(b"Connection: ");
                    bytes.extend_from_slice(member);
                    bytes.extend_from_slice(b"\r\n");
                }
                continue;
            }
            header::DATE => declared.date = true,
            _ => {}
        }
        let _ = write!(bytes, "{name}: {value}\r\n");
    }
    Ok(declared)
}

/// RFC 9110 §8.6: digits, and nothing else.
fn parse_length(value: &str) -> Result<u64, Error> {
    let digits = value.trim_matches([' ', '\t']);
    let is_number = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
    is_number
        .then(|| digits.parse().ok())
        .flatten()
        .ok_or(refused("a Content-Length is not a number"))
}

/// Decides about the framing, and appends its field.
fn frame(
    around: Circumstances,
    status: StatusCode,
    declared: Option<u64>,
    length: Option<usize>,
    bytes: &mut Vec<u8>,
) -> Result<Framing, Error> {
    let bodiless = is_bodiless(around, status);
    let actual = length.map(|n| n as u64);
    if !bodiless && declared.is_some() && actual.is_some() && declared != actual {
        return Err(refused("the Content-Length is not that of the body"));
    }
    // What a response without a body says of one is the handler's, since only that knows what GET would bring.
    let said = match status {
        StatusCode::NO_CONTENT => None,
        StatusCode::NOT_MODIFIED => declared,
        _ => declared.or(actual),
    };
    if let Some(n) = said {
        let _ = write!(bytes, "Content-Length: {n}\r\n");
    }
    if bodiless {
        return Ok(Framing::Bodiless);
    }
    Ok(match said {
        Some(n) => Framing::Length(n),
        None if around.is_11 => {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            Framing::Chunked
        }
        None => Framing::UntilClose,
    })
}

/// Whether `method` is HEAD. Methods are case-sensitive (RFC 9110 §9.1).
pub(super) fn is_head(method: &[u8]) -> bool {
    method == Method::HEAD.as_str().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Circumstances = Circumstances {
        is_11: true,
        is_head: false,
        keeps_alive: true,
    };

    fn head(
        around: Circumstances,
        status: u16,
        fields: &[(&str, &str)],
        length: Option<usize>,
    ) -> Result<(String, Framing, bool), Error> {
        let head = ResponseHead::new(around, status, fields, length)?;
        let text = String::from_utf8(head.bytes).unwrap();
        let without_date = text
            .split("\r\n")
            .filter(|line| !line.starts_with("Date: "));
        Ok((
            without_date.collect::<Vec<_>>().join("|"),
            head.framing,
            head.closes,
        ))
    }

    #[test]
    fn phrases_are_those_of_the_registry() {
        for (status, line) in [
            (200, "HTTP/1.1 200 OK|"),
            (302, "HTTP/1.1 302 Found|"),
            (418, "HTTP/1.1 418 I'm a teapot|"),
            (599, "HTTP/1.1 599 |"),
        ] {
            let (text, ..) = head(PLAIN, status, &[], Some(0)).unwrap();
            assert!(text.starts_with(line), "{text}");
        }
        for status in [0, 99, 100, 101, 103, 199, 1000] {
            assert!(matches!(
                head(PLAIN, status, &[], Some(0)),
                Err(Error::Response(_))
            ));
        }
    }

    #[test]
    fn fields_that_would_split_a_response_are_refused() {
        for (name, value) in [
            ("Location", "/a\r\nSet-Cookie: evil=1"),
            ("Location", "/a\nb"),
            ("Location", "/a\rb"),
            ("X", "a\0b"),
            ("X", "a\x7fb"),
            ("X Y", "a"),
            ("X:", "a"),
            ("", "a"),
            ("X\r\nY", "a"),
            ("Ü", "a"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "+5"),
            ("Content-Length", "5, 5"),
            ("Content-Length", ""),
            ("Content-Length", "99999999999999999999"),
            ("Content-Length", "6"),
        ] {
            let got = head(PLAIN, 200, &[(name, value)], Some(5));
            assert!(matches!(got, Err(Error::Response(_))), "{name:?} {value:?}");
        }
        let two = [("Content-Length", "5"), ("content-length", "6")];
        assert!(head(PLAIN, 200, &two, None).is_err());
    }

    #[test]
    fn a_response_has_one_framing() {
        let given = [("Content-Length", "5"), ("content-length", " 5 ")];
        let length = "HTTP/1.1 200 OK|Content-Length: 5||";
        for (fields, known) in [(&given[..], Some(5)), (&given[..], None), (&[], Some(5))] {
            let (text, framing, closes) = head(PLAIN, 200, fields, known).unwrap();
            assert_eq!(
                (&*text, framing, closes),
                (length, Framing::Length(5), false)
            );
        }
        let (text, framing, _) = head(PLAIN, 200, &[], None).unwrap();
        assert_eq!(
            (&*text, framing),
            (
                "HTTP/1.1 200 OK|Transfer-Encoding: chunked||",
                Framing::Chunked
            )
        );
        let old = Circumstances {
            is_11: false,
            ..PLAIN
        };
        let (text, framing, closes) = head(old, 200, &[], None).unwrap();
        assert_eq!(text, "HTTP/1.1 200 OK|Connection: close||");
        assert_eq!((framing, closes), (Framing::UntilClose, true));
        let (text, ..) = head(old, 200, &[], Some(1)).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 200 OK|Content-Length: 1|Connection: keep-alive||"
        );
    }

    #[test]
    fn responses_without_a_body_have_no_framing_of_their_own() {
        let given = [("Content-Length", "7")];
        for (status, fields, length, expected) in [
            (204, &[][..], None, "HTTP/1.1 204 No Content||"),
            (204, &[], Some(4), "HTTP/1.1 204 No Content||"),
            (204, &given, Some(0), "HTTP/1.1 204 No Content||"),
            (304, &[], Some(0), "HTTP/1.1 304 Not Modified||"),
            (
                304,
                &given,
                Some(0),
                "HTTP/1.1 304 Not Modified|Content-Length: 7||",
            ),
        ] {
            let (text, framing, _) = head(PLAIN, status, fields, length).unwrap();
            assert_eq!((&*text, framing), (expected, Framing::Bodiless));
        }
        let to_head = Circumstances {
            is_head: true,
            ..PLAIN
        };
        let (text, framing, _) = head(to_head, 200, &given, Some(0)).unwrap();
        assert_eq!(
            (&*text, framing),
            ("HTTP/1.1 200 OK|Content-Length: 7||", Framing::Bodiless)
        );
    }

    #[test]
    fn connection_and_date_are_said_once() {
        let fields = [
            ("Connection", "close, x-hop"),
            ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ];
        let head = ResponseHead::new(PLAIN, 200, &fields, Some(0)).unwrap();
        let text = String::from_utf8(head.bytes).unwrap();
        assert!(head.closes);
        assert_eq!(text.matches("Date: ").count(), 1);
        assert_eq!(text.matches("Connection: close\r\n").count(), 1);
        assert_eq!(text.matches("Connection: x-hop\r\n").count(), 1);
    }
}
