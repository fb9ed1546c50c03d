//! The character classes of RFC 9110 and small comparisons of names.

const fn table(extra: &[u8]) -> [bool; 256] {
    let mut t = [false; 256];
    let mut c = 0;
    while c < 256 {
        t[c] = (c as u8).is_ascii_alphanumeric();
        c += 1;
    }
    let mut i = 0;
    while i < extra.len() {
        t[extra[i] as usize] = true;
        i += 1;
    }
    t
}

static TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");

/// Whether `c` may be in a token (RFC 9110 §5.6.2).
#[inline]
pub fn is_token(c: u8) -> bool {
    TOKEN[c as usize]
}

/// Whether `c` may be in a field's value: visible, space, tab or obs-text (RFC 9110 §5.5).
#[inline]
pub fn is_value(c: u8) -> bool {
    c == b'\t' || (c >= b' ' && c != 0x7f)
}

/// Without spaces and tabs around it.
pub fn trim(mut s: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = s {
        s = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = s {
        s = rest;
    }
    s
}

/// The members of a comma-separated list, trimmed; empty ones are left out (RFC 9110 §5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&c| c == b',')
        .map(trim)
        .filter(|member| !member.is_empty())
}

/// Whether the list in `value` has this member, in any case.
pub fn has_member(value: &[u8], member: &str) -> bool {
    list(value).any(|m| m.eq_ignore_ascii_case(member.as_bytes()))
}
