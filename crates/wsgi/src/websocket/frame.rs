//! Frames: the header and the mask (RFC 6455 §5).

/// Why a connection has to end, and the code to close it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// 1002, 1007 or 1009 (RFC 6455 §7.4.1).
    pub code: u16,
    /// What was wrong; nothing that the client sent is in it.
    pub reason: &'static str,
}

impl Violation {
    /// 1002: against the protocol.
    pub const fn protocol(reason: &'static str) -> Self {
        Violation { code: 1002, reason }
    }

    /// 1007: text that is no UTF-8, or a payload that cannot be inflated.
    pub const fn data(reason: &'static str) -> Self {
        Violation { code: 1007, reason }
    }

    /// 1009: too big.
    pub const TOO_BIG: Violation = Violation {
        code: 1009,
        reason: "the message is too big",
    };
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further part of a message.
    Continuation = 0,
    /// Text, or its first part.
    Text = 1,
    /// Bytes, or their first part.
    Binary = 2,
    /// The end.
    Close = 8,
    /// A question whether the other side is there.
    Ping = 9,
    /// The answer to it.
    Pong = 10,
}

impl Opcode {
    /// The opcode with this number.
    pub fn new(number: u8) -> Option<Self> {
        Some(match number {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    /// Whether it is about the connection, not a part of a message.
    pub fn is_control(self) -> bool {
        self as u8 & 8 != 0
    }
}

/// The header of a frame from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whether it is the last one of its message.
    pub fin: bool,
    /// RSV1: whether the message that it begins is compressed.
    pub compressed: bool,
    /// What it is.
    pub opcode: Opcode,
    /// Bytes of payload.
    pub length: u64,
    /// What the payload was masked with.
    pub mask: [u8; 4],
}

/// The most bytes of a header.
pub const LONGEST: usize = 14;

impl Header {
    /// Parses the header at the front of `data`; gives it and its length, or nothing when more is needed.
    ///
    /// # Errors
    /// A frame that no client may send, as soon as it shows.
    pub fn parse(data: &[u8]) -> Result<Option<(Header, usize)>, Violation> {
        let [first, second, ..] = *data else {
            return Ok(None);
        };
        if first & 0x30 != 0 {
            return Err(Violation::protocol("a reserved bit is set"));
        }
        let opcode = Opcode::new(first & 0x0f).ok_or(Violation::protocol("an unknown opcode"))?;
        let fin = first & 0x80 != 0;
        let compressed = first & 0x40 != 0;
        if second & 0x80 == 0 {
            return Err(Violation::protocol("a frame from a client without a mask"));
        }
        let short = second & 0x7f;
        if opcode.is_control() {
            if !fin {
                return Err(Violation::protocol("a control frame in fragments"));
            }
            if short > 125 {
                return Err(Violation::protocol(
                    "a control frame of more than 125 bytes",
                ));
            }
        }
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(rest) = data.get(2..2 + extended + 4) else {
            return Ok(None);
        };
        let (number, mask) = rest.split_at(extended);
        let length = match extended {
            0 => u64::from(short),
            _ => number.iter().fold(0, |n, &byte| n << 8 | u64::from(byte)),
        };
        if extended == 2 && length < 126 || extended == 8 && length <= 0xffff {
            return Err(Violation::protocol("a length that is not the shortest"));
        }
        if length >> 63 != 0 {
            return Err(Violation::protocol("a length with its highest bit set"));
        }
        let header = Header {
            fin,
            compressed,
            opcode,
            length,
            mask: [mask[0], mask[1], mask[2], mask[3]],
        };
        Ok(Some((header, 2 + extended + 4)))
    }
}

/// Takes the mask off `payload` (or puts it on), whose first byte is the `at`th one of its frame.
pub fn unmask(payload: &mut [u8], mask: [u8; 4], at: usize) {
    let mut turned = mask;
    turned.rotate_left(at % 4);
    let [a, b, c, d] = turned;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let bytes: &mut [u8; 8] = word.try_into().expect("chunks of eight");
        *bytes = (u64::from_ne_bytes(*bytes) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(turned.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_every_length() {
        for (length, size) in [(0u64, 6), (125, 6), (126, 8), (65535, 8), (65536, 14)] {
            let mut data = vec![0x82];
            match length {
                0..=125 => data.push(0x80 | length as u8),
                126..=65535 => {
                    data.push(0xfe);
                    data.extend((length as u16).to_be_bytes());
                }
                _ => {
                    data.push(0xff);
                    data.extend(length.to_be_bytes());
                }
            }
            data.extend([1, 2, 3, 4]);
            for cut in 0..size {
                assert_eq!(Header::parse(&data[..cut]), Ok(None));
            }
            let (header, used) = Header::parse(&data).unwrap().unwrap();
            assert_eq!((header.length, used), (length, size));
            assert_eq!(header.mask, [1, 2, 3, 4]);
        }
    }

    #[test]
    fn what_no_client_may_send() {
        for data in [
            &[0x81u8, 0x05][..],
            &[0x91, 0x80],
            &[0x83, 0x80],
            &[0x8b, 0x80],
            &[0x09, 0x80],
            &[0x88, 0xfe],
            &[0x82, 0xfe, 0, 125, 0, 0, 0, 0],
            &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
            &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(Header::parse(data).unwrap_err().code, 1002, "{data:?}");
        }
    }

    #[test]
    fn masks_go_on_where_they_were() {
        let plain: Vec<u8> = (0..100).collect();
        let mask = [9, 8, 7, 6];
        let naive: Vec<u8> = plain
            .iter()
            .zip(mask.iter().cycle())
            .map(|(a, b)| a ^ b)
            .collect();
        for cut in 0..100 {
            let mut data = plain.clone();
            let (head, tail) = data.split_at_mut(cut);
            unmask(head, mask, 0);
            unmask(tail, mask, cut);
            assert_eq!(data, naive);
        }
    }
}
