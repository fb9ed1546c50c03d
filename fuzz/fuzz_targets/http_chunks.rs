//! Chunked bodies: nothing panics, and the body, its end and its errors are the same byte by byte and in
//! one piece.

#![no_main]

use gevent_wsgi::{BodyDecoder, Framing, Limits, Policy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for policy in [Policy::Strict, Policy::Upstream] {
        let decode = |step: usize| {
            let mut decoder = BodyDecoder::new(Framing::Chunked, &Limits::default(), policy);
            let (mut body, mut used) = (Vec::new(), 0);
            for piece in data.chunks(step) {
                match decoder.feed(piece, &mut body) {
                    Ok(n) => used += n,
                    Err(reject) => return (body, 0, false, Some(reject)),
                }
            }
            (body, used, decoder.is_done(), None)
        };
        let whole = decode(data.len().max(1));
        assert_eq!(whole, decode(1));
        assert!(whole.0.len() <= data.len());
    }
});
