//! Request heads: nothing panics; what is accepted is what it says it is, and no byte of it is a line end,
//! a NUL or anything else that a parser downstream might see differently.

#![no_main]

use gevent_wsgi::{Head, Limits, Policy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut head = Head::default();
    if head.parse(data, &Limits::default(), Policy::Strict).is_err() {
        return;
    }
    assert!(data.ends_with(b"\r\n\r\n"));
    let clean = |s: &[u8]| !s.iter().any(|c| matches!(c, b'\r' | b'\n' | 0 | 0x7f));
    let (path, query) = head.path(data);
    for part in [head.method.of(data), head.target.of(data), path, query] {
        assert!(clean(part) && !part.contains(&b' '));
    }
    // The fields, written anew, are the block that was read but for space around the values.
    let lines = data[head.block as usize..].split(|&c| c == b'\n').count();
    assert_eq!(lines, head.fields.len() + 2);
    for field in &head.fields {
        assert!(field.name.of(data).iter().all(|&c| gevent_wsgi::chars::is_token(c)));
        assert!(field.value.of(data).iter().all(|&c| gevent_wsgi::chars::is_value(c)));
    }
});
