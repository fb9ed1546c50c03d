//! `permessage-deflate` (RFC 7692): what is agreed on, and packing and unpacking of messages.
//!
//! No side keeps its window from one message to the next, and that is told the client. It costs some
//! compression; in return a connection that is quiet holds no memory for it.

use super::frame::Violation;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What ends a message's last block, and is not sent (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Messages shorter than this are sent as they are.
pub const WORTHWHILE: usize = 256;

/// Compression as it was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflate {
    /// The most that the client's window holds, as a power of two.
    window: u8,
}

impl Default for Deflate {
    fn default() -> Self {
        Deflate { window: 15 }
    }
}

impl Deflate {
    /// Picks an offer of a `Sec-WebSocket-Extensions` field. Gives the answer to put into that field.
    pub fn negotiate(offers: &str) -> Option<(Self, String)> {
        offers.split(',').find_map(Self::accept)
    }

    fn accept(offer: &str) -> Option<(Self, String)> {
        let mut parameters = offer.split(';').map(str::trim);
        if parameters.next() != Some("permessage-deflate") {
            return None;
        }
        let mut deflate = Deflate::default();
        let mut answer = String::from(
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        );
        let mut seen = Vec::new();
        for parameter in parameters {
            let (name, value) = match parameter.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (parameter, None),
            };
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
            match (name, value) {
                ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
                // Any window of the client's is one that we can unpack.
                ("client_max_window_bits", None) => {}
                ("client_max_window_bits", Some(value)) => {
                    bits(value)?;
                }
                ("server_max_window_bits", Some(value)) => {
                    deflate.window = bits(value)?;
                    if deflate.window < 9 {
                        // zlib has no smaller one.
                        return None;
                    }
                    answer.push_str("; server_max_window_bits=");
                    answer.push_str(value);
                }
                _ => return None,
            }
        }
        Some((deflate, answer))
    }

    /// A message, packed.
    pub fn compress(self, message: &[u8]) -> Vec<u8> {
        let mut packer = Compress::new_with_window_bits(Compression::fast(), false, self.window);
        let mut packed = Vec::with_capacity(message.len() / 2 + 64);
        loop {
            let from = packer.total_in() as usize;
            // The packer has nothing to fail at: it is given room and asked to flush.
            let status = packer.compress_vec(&message[from..], &mut packed, FlushCompress::Sync);
            debug_assert!(status.is_ok());
            let finished = packer.total_in() as usize == message.len();
            if finished && packed.len() < packed.capacity() && packed.ends_with(&TAIL) {
                packed.truncate(packed.len() - TAIL.len());
                return packed;
            }
            packed.reserve(packed.capacity().max(64));
        }
    }
}

/// `8` to `15` in the shortest form.
fn bits(value: &str) -> Option<u8> {
    match value.parse() {
        Ok(bits @ 8..=15) if !value.starts_with(['0', '+']) => Some(bits),
        _ => None,
    }
}

/// Unpacks.
pub(super) struct Inflater;

impl Inflater {
    /// A message, unpacked, of not more than `limit` bytes.
    pub(super) fn inflate(packed: &[u8], limit: usize) -> Result<Vec<u8>, Violation> {
        const BAD: Violation = Violation::data("a payload that cannot be inflated");
        let most = limit.saturating_add(1);
        let mut unpacker = Decompress::new(false);
        let mut message = Vec::with_capacity((packed.len() * 3).max(64).min(most));
        for mut input in [packed, &TAIL] {
            loop {
                let (before, room) = (unpacker.total_in(), message.len());
                let status = unpacker
                    .decompress_vec(input, &mut message, FlushDecompress::Sync)
                    .map_err(|_| BAD)?;
                input = &input[(unpacker.total_in() - before) as usize..];
                if message.len() > limit {
                    return Err(Violation::TOO_BIG);
                }
                if status == Status::StreamEnd {
                    // A block that says it is the last: others may follow (RFC 7692 §7.2.3.4).
                    unpacker = Decompress::new(false);
                } else if message.len() == message.capacity() {
                    message.reserve(message.capacity().min(most).max(64));
                    continue;
                } else if unpacker.total_in() == before
                    && message.len() == room
                    && !input.is_empty()
                {
                    return Err(BAD);
                }
                if input.is_empty() {
                    break;
                }
            }
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers() {
        let accepts = |offer| Deflate::negotiate(offer).map(|(_, answer)| answer);
        let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        assert_eq!(
            accepts("permessage-deflate; client_max_window_bits").as_deref(),
            Some(plain)
        );
        assert_eq!(
            accepts("x-other, permessage-deflate").as_deref(),
            Some(plain)
        );
        assert!(
            accepts("permessage-deflate; server_max_window_bits=10")
                .unwrap()
                .ends_with("; server_max_window_bits=10")
        );
        // The first one that can be had.
        assert_eq!(
            accepts("permessage-deflate; server_max_window_bits=8, permessage-deflate").as_deref(),
            Some(plain)
        );
        for bad in [
            "",
            "x-webkit-deflate-frame",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; unknown",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
        ] {
            assert_eq!(accepts(bad), None, "{bad}");
        }
    }

    #[test]
    fn there_and_back() {
        let mut noise = 1u32;
        let mut random = || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        };
        for length in [0, 1, 100, 5000, 300_000] {
            for message in [vec![b'a'; length], (0..length).map(|_| random()).collect()] {
                for window in [9, 15] {
                    let packed = Deflate { window }.compress(&message);
                    assert_eq!(Inflater::inflate(&packed, length).as_ref(), Ok(&message));
                    if length > 0 {
                        let short = Inflater::inflate(&packed, length - 1);
                        assert_eq!(short, Err(Violation::TOO_BIG));
                    }
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_stopped_early() {
        let packed = Deflate::default().compress(&vec![0; 50_000_000]);
        assert!(packed.len() < 1_000_000);
        assert_eq!(Inflater::inflate(&packed, 1000), Err(Violation::TOO_BIG));
    }

    #[test]
    fn a_final_block_is_no_error() {
        // "Hello" in one final block with fixed codes (RFC 7692 §7.2.3.4).
        let packed = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(Inflater::inflate(&packed, 10).as_deref(), Ok(&b"Hello"[..]));
        assert!(Inflater::inflate(b"\xff\xff", 10).is_err());
    }
}
