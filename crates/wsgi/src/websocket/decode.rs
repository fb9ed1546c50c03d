//! [`Decoder`]: messages out of frames, however their bytes come.

use super::deflate::Inflater;
use super::frame::{Header, LONGEST, Opcode, Violation, unmask};
use super::may_be_sent;

/// What came from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole text message.
    Text(String),
    /// A whole message of bytes.
    Binary(Vec<u8>),
    /// To be answered by a pong with the same payload.
    Ping(Vec<u8>),
    /// The answer to a ping.
    Pong(Vec<u8>),
    /// The client is done: its code, if it gave one, and why.
    Close(Option<u16>, String),
}

/// The message that is under way.
#[derive(Debug)]
struct Message {
    text: bool,
    compressed: bool,
    data: Vec<u8>,
    /// Bytes of `data` that were found to be UTF-8.
    valid: usize,
}

/// The frame that is under way.
#[derive(Debug)]
struct Frame {
    header: Header,
    /// Bytes of the payload that were seen.
    seen: u64,
}

/// Decodes the frames of one client. A violation is one for ever, and nothing follows a close.
#[derive(Debug)]
pub struct Decoder {
    /// The most bytes of a message, after it was inflated.
    limit: usize,
    /// Whether compression was agreed on.
    compression: bool,
    header: [u8; LONGEST],
    header_length: usize,
    frame: Option<Frame>,
    control: Vec<u8>,
    message: Option<Message>,
    over: Option<Result<(), Violation>>,
}

impl Decoder {
    /// With the most bytes that a message may have, and whether it may be compressed.
    pub fn new(limit: usize, compression: bool) -> Self {
        Decoder {
            limit,
            compression,
            header: [0; LONGEST],
            header_length: 0,
            frame: None,
            control: Vec::new(),
            message: None,
            over: None,
        }
    }

    /// Takes what is there of `input` up to the next event, and advances it past that. Nothing means that all
    /// of the input was taken and more is needed, or that the client has closed.
    ///
    /// # Errors
    /// What is against the protocol, again at each further call.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        match self.over {
            Some(Ok(())) => {
                *input = &[];
                return Ok(None);
            }
            Some(Err(violation)) => return Err(violation),
            None => {}
        }
        let step = self.step(input);
        match &step {
            Err(violation) => self.over = Some(Err(*violation)),
            Ok(Some(Event::Close(..))) => self.over = Some(Ok(())),
            Ok(_) => {}
        }
        step
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        loop {
            if self.frame.is_none() && !self.begin(input)? {
                return Ok(None);
            }
            if !self.payload(input)? {
                return Ok(None);
            }
            if let Some(event) = self.end()? {
                return Ok(Some(event));
            }
        }
    }

    /// Reads a header. False when there is not enough of it.
    fn begin(&mut self, input: &mut &[u8]) -> Result<bool, Violation> {
        let old = self.header_length;
        let take = input.len().min(LONGEST - old);
        self.header[old..old + take].copy_from_slice(&input[..take]);
        let Some((header, used)) = Header::parse(&self.header[..old + take])? else {
            self.header_length = old + take;
            *input = &input[take..];
            return Ok(false);
        };
        *input = &input[used - old..];
        self.header_length = 0;
        self.admit(&header)?;
        self.frame = Some(Frame { header, seen: 0 });
        Ok(true)
    }

    /// Whether the frame may come here.
    fn admit(&mut self, header: &Header) -> Result<(), Violation> {
        let first = matches!(header.opcode, Opcode::Text | Opcode::Binary);
        if header.compressed && !(first && self.compression) {
            return Err(Violation::protocol("a reserved bit is set"));
        }
        if header.opcode.is_control() {
            self.control.clear();
            return Ok(());
        }
        match (first, &self.message) {
            (true, None) => {
                self.message = Some(Message {
                    text: header.opcode == Opcode::Text,
                    compressed: header.compressed,
                    data: Vec::new(),
                    valid: 0,
                });
            }
            (true, Some(_)) => {
                return Err(Violation::protocol("a message inside another one"));
            }
            (false, None) => {
                return Err(Violation::protocol("a continuation of nothing"));
            }
            (false, Some(_)) => {}
        }
        let so_far = self
            .message
            .as_ref()
            .map_or(0, |message| message.data.len());
        if header.length > (self.limit - so_far.min(self.limit)) as u64 {
            return Err(Violation::TOO_BIG);
        }
        Ok(())
    }

    /// Reads payload. False when there is not all of it.
    fn payload(&mut self, input: &mut &[u8]) -> Result<bool, Violation> {
        let Some(frame) = &mut self.frame else {
            return Ok(false);
        };
        let left = frame.header.length - frame.seen;
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let control = frame.header.opcode.is_control();
        let data = match &mut self.message {
            Some(message) if !control => &mut message.data,
            _ => &mut self.control,
        };
        let from = data.len();
        data.extend_from_slice(&input[..take]);
        unmask(
            &mut data[from..],
            frame.header.mask,
            (frame.seen % 4) as usize,
        );
        frame.seen += take as u64;
        *input = &input[take..];
        let whole = frame.seen == frame.header.length;
        match &mut self.message {
            Some(message) if !control && message.text && !message.compressed => {
                message.check(whole && frame.header.fin)?;
            }
            _ => {}
        }
        Ok(whole)
    }

    /// Ends a frame.
    fn end(&mut self) -> Result<Option<Event>, Violation> {
        let Some(Frame { header, .. }) = self.frame.take() else {
            return Ok(None);
        };
        match header.opcode {
            Opcode::Ping => return Ok(Some(Event::Ping(std::mem::take(&mut self.control)))),
            Opcode::Pong => return Ok(Some(Event::Pong(std::mem::take(&mut self.control)))),
            Opcode::Close => return closed(&self.control).map(Some),
            _ if !header.fin => return Ok(None),
            _ => {}
        }
        let Some(mut message) = self.message.take() else {
            return Ok(None);
        };
        if message.compressed {
            message.data = Inflater::inflate(&message.data, self.limit)?;
        }
        if !message.text {
            return Ok(Some(Event::Binary(message.data)));
        }
        match String::from_utf8(message.data) {
            Ok(text) => Ok(Some(Event::Text(text))),
            Err(_) => Err(NO_UTF8),
        }
    }
}

const NO_UTF8: Violation = Violation::data("text that is no UTF-8");

impl Message {
    /// Looks at the text that is new: what is wrong is said before the message ends.
    fn check(&mut self, whole: bool) -> Result<(), Violation> {
        match std::str::from_utf8(&self.data[self.valid..]) {
            Ok(_) => self.valid = self.data.len(),
            Err(error) if error.error_len().is_none() && !whole => {
                self.valid += error.valid_up_to();
            }
            Err(_) => return Err(NO_UTF8),
        }
        Ok(())
    }
}

/// What a Close frame says (RFC 6455 §5.5.1).
fn closed(payload: &[u8]) -> Result<Event, Violation> {
    match *payload {
        [] => Ok(Event::Close(None, String::new())),
        [_] => Err(Violation::protocol("a close code of one byte")),
        [high, low, ref reason @ ..] => {
            let code = u16::from_be_bytes([high, low]);
            if !may_be_sent(code) {
                return Err(Violation::protocol("a close code that nobody may send"));
            }
            match std::str::from_utf8(reason) {
                Ok(reason) => Ok(Event::Close(Some(code), reason.to_owned())),
                Err(_) => Err(NO_UTF8),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::{Deflate, encode};

    fn masked(frame: Vec<u8>) -> Vec<u8> {
        let (mut head, payload) = match frame[1] {
            126 => (frame[..4].to_vec(), &frame[4..]),
            127 => (frame[..10].to_vec(), &frame[10..]),
            _ => (frame[..2].to_vec(), &frame[2..]),
        };
        head[1] |= 0x80;
        let mask = [0x12, 0x34, 0x56, 0x78];
        head.extend(mask);
        let mut payload = payload.to_vec();
        unmask(&mut payload, mask, 0);
        head.extend(payload);
        head
    }

    fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut frame = encode::frame(opcode, payload, false);
        if !fin {
            frame[0] &= 0x7f;
        }
        masked(frame)
    }

    fn decode(data: &[u8], step: usize) -> (Vec<Event>, Option<u16>) {
        let mut decoder = Decoder::new(100_000, true);
        let mut events = Vec::new();
        for mut piece in data.chunks(step) {
            loop {
                match decoder.next(&mut piece) {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(violation) => return (events, Some(violation.code)),
                }
            }
            assert!(piece.is_empty());
        }
        (events, None)
    }

    fn same_in_pieces(data: &[u8]) -> (Vec<Event>, Option<u16>) {
        let whole = decode(data, data.len().max(1));
        for step in 1..data.len().min(40) {
            assert_eq!(decode(data, step), whole, "in steps of {step}");
        }
        whole
    }

    #[test]
    fn messages_in_fragments_with_control_frames_between() {
        let data = [
            frame(false, Opcode::Text, "h\u{20ac}".as_bytes()),
            frame(true, Opcode::Ping, b"x"),
            frame(false, Opcode::Continuation, b""),
            frame(true, Opcode::Pong, b""),
            frame(true, Opcode::Continuation, b"y"),
            frame(true, Opcode::Binary, &[7; 70_000]),
            frame(true, Opcode::Close, b"\x03\xe8bye"),
            b"whatever".to_vec(),
        ]
        .concat();
        let expected = vec![
            Event::Ping(b"x".to_vec()),
            Event::Pong(vec![]),
            Event::Text("h\u{20ac}y".into()),
            Event::Binary(vec![7; 70_000]),
            Event::Close(Some(1000), "bye".into()),
        ];
        assert_eq!(same_in_pieces(&data), (expected, None));
    }

    #[test]
    fn characters_may_be_cut() {
        let bytes = "\u{1f600}".as_bytes();
        let data = [
            frame(false, Opcode::Text, &bytes[..1]),
            frame(false, Opcode::Continuation, &bytes[1..3]),
            frame(true, Opcode::Continuation, &bytes[3..]),
        ]
        .concat();
        assert_eq!(same_in_pieces(&data).0, [Event::Text("\u{1f600}".into())]);
    }

    #[test]
    fn violations() {
        for (frames, code) in [
            (vec![frame(true, Opcode::Continuation, b"")], 1002),
            (
                vec![
                    frame(false, Opcode::Text, b""),
                    frame(true, Opcode::Text, b""),
                ],
                1002,
            ),
            (vec![frame(true, Opcode::Text, b"\xff")], 1007),
            (vec![frame(true, Opcode::Text, b"\xe2\x82")], 1007),
            // Before the message ends.
            (vec![frame(false, Opcode::Text, b"\xce\xba\xed\xa0")], 1007),
            (vec![frame(true, Opcode::Close, b"\x03")], 1002),
            (vec![frame(true, Opcode::Close, b"\x03\xed")], 1002),
            (vec![frame(true, Opcode::Close, b"\x03\xe8\xff")], 1007),
            (vec![frame(true, Opcode::Binary, &[0; 100_001])], 1009),
            (
                vec![
                    frame(false, Opcode::Binary, &[0; 60_000]),
                    frame(false, Opcode::Continuation, &[0; 60_000]),
                ],
                1009,
            ),
        ] {
            assert_eq!(same_in_pieces(&frames.concat()), (vec![], Some(code)));
        }
    }

    #[test]
    fn compressed_messages() {
        let text = "abc".repeat(1000);
        let packed = Deflate::default().compress(text.as_bytes());
        let data = masked(encode::frame(Opcode::Text, &packed, true));
        assert!(data.len() < 100);
        assert_eq!(same_in_pieces(&data).0, [Event::Text(text)]);
        // What grows beyond the limit.
        let packed = Deflate::default().compress(&[0; 100_001]);
        let data = masked(encode::frame(Opcode::Binary, &packed, true));
        assert_eq!(same_in_pieces(&data), (vec![], Some(1009)));
        // No such thing.
        let data = masked(encode::frame(Opcode::Binary, b"\xff\xff\xff\xff", true));
        assert_eq!(same_in_pieces(&data), (vec![], Some(1007)));
        // Not agreed on, or not where it may be.
        let mut decoder = Decoder::new(100, false);
        assert!(decoder.next(&mut data.as_slice()).is_err());
        let data = [
            frame(false, Opcode::Binary, b""),
            masked(encode::frame(Opcode::Continuation, b"", true)),
        ];
        assert_eq!(same_in_pieces(&data.concat()), (vec![], Some(1002)));
    }

    #[test]
    fn a_violation_stays_one() {
        let mut decoder = Decoder::new(100, false);
        assert!(decoder.next(&mut &b"\x00\x00"[..]).is_err());
        let good = frame(true, Opcode::Text, b"x");
        assert!(decoder.next(&mut good.as_slice()).is_err());
    }
}
