//! A whole connection: nothing panics, and arbitrary splits of arbitrary bytes give the same events as one
//! piece.

#![no_main]

use gevent_wsgi::inbound::Machine;
use gevent_wsgi::{Limits, Policy, Rules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, Vec<u8>, Vec<u8>)| {
    let (strict, sizes, data) = input;
    let rules = Rules {
        limits: Limits {
            head: 2048,
            line: 512,
            headers: 16,
            body: 4096,
            extension: 64,
            trailers: 128,
        },
        policy: if strict { Policy::Strict } else { Policy::Upstream },
    };
    let mut whole = Machine::new(rules);
    whole.feed(&data);
    let mut split = Machine::new(rules);
    let mut rest = data.as_slice();
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let n = usize::from(*sizes.next().unwrap_or(&0)).clamp(1, rest.len());
        split.feed(&rest[..n]);
        rest = &rest[n..];
    }
    assert_eq!(whole.events(), split.events());
});
