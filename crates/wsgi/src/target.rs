//! The four forms of a request target (RFC 9112 §3.2).

use crate::head::Span;
use crate::reject::Reject;

/// What a target is, and where its parts are in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    Origin,
    /// `http://authority/path?query`, as proxies get it.
    Absolute {
        /// `host:port`
        authority: Span,
        /// What is left of it; may be empty or begin with `?`.
        rest: Span,
    },
    /// `host:port`, with CONNECT only.
    Authority,
    /// `*`, with OPTIONS only.
    Asterisk,
}

/// Tells the form of a target.
///
/// # Errors
/// A target that has none of the forms, or one that its method does not go with.
pub fn form(method: &[u8], target: &[u8]) -> Result<Form, Reject> {
    if target.contains(&b'#') {
        return Err(Reject::bad("a fragment in the request target"));
    }
    if method == b"CONNECT" {
        return match is_host(target) && has_port(target) {
            true => Ok(Form::Authority),
            false => Err(Reject::bad("CONNECT to something other than host:port")),
        };
    }
    match target {
        [b'/', ..] => Ok(Form::Origin),
        b"*" if method == b"OPTIONS" => Ok(Form::Asterisk),
        _ => absolute(target),
    }
}

fn absolute(target: &[u8]) -> Result<Form, Reject> {
    const BAD: Reject = Reject::bad("a request target of no known form");
    let colon = memchr::memmem::find(target, b"://").ok_or(BAD)?;
    let scheme = &target[..colon];
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(BAD);
    }
    let from = colon + 3;
    let length = target[from..]
        .iter()
        .position(|c| matches!(c, b'/' | b'?'))
        .unwrap_or(target.len() - from);
    let authority = &target[from..from + length];
    if !is_host(authority) || authority.is_empty() {
        return Err(Reject::bad("a request target with a bad authority"));
    }
    Ok(Form::Absolute {
        authority: Span::new(from, from + length),
        rest: Span::new(from + length, target.len()),
    })
}

/// What may stand in a name: reg-name is unreserved, percent-encoded and sub-delims; what is not ASCII comes from
/// clients that know no punycode.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut c = 0;
    while c < 256 {
        let byte = c as u8;
        table[c] = byte.is_ascii_alphanumeric() || byte >= 0x80;
        c += 1;
    }
    let others = b"-._~%!$&'()*+,;=";
    let mut i = 0;
    while i < others.len() {
        table[others[i] as usize] = true;
        i += 1;
    }
    table
};

/// Whether `host` could be `uri-host [ ":" port ]`: what a Host field may hold (RFC 9110 §7.2). Empty is
/// allowed there.
pub fn is_host(host: &[u8]) -> bool {
    let port = if let [b'[', rest @ ..] = host {
        let Some(end) = memchr::memchr(b']', rest) else {
            return false;
        };
        let ok = |c: &u8| c.is_ascii_alphanumeric() || b":.%-_~".contains(c);
        if end == 0 || !rest[..end].iter().all(ok) {
            return false;
        }
        &rest[end + 1..]
    } else {
        let name = host.iter().position(|&c| !NAME[c as usize]);
        &host[name.unwrap_or(host.len())..]
    };
    match port {
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn has_port(host: &[u8]) -> bool {
    let digits = host.iter().rev().take_while(|c| c.is_ascii_digit()).count();
    digits > 0 && digits + 1 < host.len() && host[host.len() - digits - 1] == b':'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_go_with_their_methods() {
        assert_eq!(form(b"GET", b"/a?b").unwrap(), Form::Origin);
        assert_eq!(form(b"OPTIONS", b"*").unwrap(), Form::Asterisk);
        assert_eq!(form(b"CONNECT", b"a.example:443").unwrap(), Form::Authority);
        let absolute = form(b"GET", b"http://a.example:80/x?y").unwrap();
        let Form::Absolute { authority, rest } = absolute else {
            panic!("{absolute:?}");
        };
        assert_eq!((authority.start(), authority.end()), (7, 19));
        assert_eq!((rest.start(), rest.end()), (19, 23));
        for (method, target) in [
            (&b"GET"[..], &b"*"[..]),
            (b"GET", b"a.example:443"),
            (b"GET", b"path"),
            (b"GET", b"/a#b"),
            (b"GET", b"ftp://a/"),
            (b"GET", b"http:///x"),
            (b"GET", b"http://u@h/"),
            (b"CONNECT", b"/"),
            (b"CONNECT", b"host"),
            (b"CONNECT", b":443"),
        ] {
            assert_eq!(form(method, target).unwrap_err().status, 400, "{target:?}");
        }
    }

    #[test]
    fn hosts() {
        for good in ["a", "a:80", "[::1]:80", "[::1]", "", "1.2.3.4:1", "a_b.c"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b", "a/b", "a@b", "[::1", "[]", "a:b", "a:1:2", "[::1]x", "a:123456",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
