//! Frames from the server: never masked, never in fragments.

use super::frame::Opcode;

/// A whole frame. `compressed` says that the payload is.
pub fn frame(opcode: Opcode, payload: &[u8], compressed: bool) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(0x80 | if compressed { 0x40 } else { 0 } | opcode as u8);
    match payload.len() {
        short @ ..=125 => frame.push(short as u8),
        medium @ ..=0xffff => {
            frame.push(126);
            frame.extend((medium as u16).to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// A Close frame. A reason that is too long is cut, at a character's end.
pub fn close(code: Option<u16>, reason: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    if let Some(code) = code {
        payload.extend(code.to_be_bytes());
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        payload.extend_from_slice(&reason.as_bytes()[..end]);
    }
    frame(Opcode::Close, &payload, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        assert_eq!(frame(Opcode::Text, b"ab", false), b"\x81\x02ab");
        assert_eq!(
            frame(Opcode::Binary, &[0; 126], true)[..4],
            [0xc2, 126, 0, 126]
        );
        let long = frame(Opcode::Binary, &[0; 65536], false);
        assert_eq!(long[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(close(None, "x"), b"\x88\x00");
        assert_eq!(close(Some(1000), &"\u{20ac}".repeat(50)).len(), 2 + 2 + 123);
        assert_eq!(close(Some(1000), &"\u{e4}".repeat(100)).len(), 2 + 2 + 122);
    }
}
