//! The table of good, bad and malicious requests: each gets the answer that it says, however its bytes are
//! split; and whatever else comes is taken the same way in one piece and in many.

use gevent_wsgi::inbound::{Event, Machine};
use gevent_wsgi::{Limits, Rules};

const TABLE: &str = include_str!("data/requests.txt");

/// The limits of the table's server.
fn rules() -> Rules {
    Rules {
        limits: Limits {
            body: 1_048_576,
            ..Limits::default()
        },
        ..Rules::default()
    }
}

struct Row {
    line: usize,
    answers: String,
    data: Vec<u8>,
}

fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => {
                i += 1;
                match bytes[i] {
                    b'r' => out.push(b'\r'),
                    b'n' => out.push(b'\n'),
                    b't' => out.push(b'\t'),
                    b'x' => {
                        out.push(u8::from_str_radix(&text[i + 1..i + 3], 16).unwrap());
                        i += 2;
                    }
                    other => out.push(other),
                }
                i += 1;
            }
            b'{' => match repeated(&text[i + 1..]) {
                Some((inner, times, used)) => {
                    out.extend(unescape(inner).repeat(times));
                    i += 1 + used;
                }
                None => {
                    out.push(b'{');
                    i += 1;
                }
            },
            other => {
                out.push(other);
                i += 1;
            }
        }
    }
    out
}

fn repeated(text: &str) -> Option<(&str, usize, usize)> {
    let end = text.find('}')?;
    let (inner, times) = text[..end].rsplit_once('*')?;
    Some((inner, times.parse().ok()?, end + 1))
}

fn table() -> Vec<Row> {
    TABLE
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(at, line)| {
            let data = line[12..].split('\t').next().unwrap();
            Row {
                line: at + 1,
                answers: line[..12].trim().to_owned(),
                data: unescape(data),
            }
        })
        .collect()
}

fn run<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut machine = Machine::new(rules());
    pieces.for_each(|piece| machine.feed(piece));
    machine.events().to_vec()
}

fn answers(events: &[Event]) -> String {
    let answers: Vec<String> = events
        .iter()
        .filter_map(|event| match event {
            Event::End => Some("200".to_owned()),
            Event::Reject(reject) => Some(reject.status.to_string()),
            _ => None,
        })
        .collect();
    match answers.is_empty() {
        true => "wait".to_owned(),
        false => answers.join(","),
    }
}

#[test]
fn every_request_gets_its_answer() {
    let table = table();
    assert!(table.len() > 300);
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|row| {
            let events = run(std::iter::once(row.data.as_slice()));
            let got = answers(&events);
            (got != row.answers)
                .then(|| format!("line {}: {got}, not {} ({events:?})", row.line, row.answers))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn splits_of_the_table_change_nothing() {
    for row in table() {
        let whole = run(std::iter::once(row.data.as_slice()));
        let steps: &[usize] = if row.data.len() < 5000 {
            &[1, 2, 3, 7, 64]
        } else {
            &[997]
        };
        for &step in steps {
            let split = run(row.data.chunks(step));
            assert_eq!(whole, split, "line {} by {step}", row.line);
        }
    }
}

/// xorshift64*: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

#[test]
fn splits_of_what_was_made_of_the_table_change_nothing() {
    const NASTY: &[u8] = b"\r\n\t :;,\0\"\\0a5fG/?*#\x7f\x80_-{";
    let table: Vec<_> = table()
        .into_iter()
        .filter(|row| row.data.len() < 400)
        .collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..4000 {
        let mut data = Vec::new();
        for _ in 0..=random.below(3) {
            data.extend(&table[random.below(table.len())].data);
        }
        for _ in 0..random.below(4) {
            let at = random.below(data.len());
            let byte = NASTY[random.below(NASTY.len())];
            match random.below(4) {
                0 => data.insert(at, byte),
                1 => drop(data.remove(at)),
                2 => data[at] = byte,
                _ => data.truncate(at.max(1)),
            }
        }
        let whole = run(std::iter::once(data.as_slice()));
        for _ in 0..3 {
            let mut machine = Machine::new(rules());
            let mut rest = data.as_slice();
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(1 + random.below(rest.len().min(40)));
                machine.feed(piece);
                rest = more;
            }
            let text = String::from_utf8_lossy(&data).into_owned();
            assert_eq!(whole, machine.events(), "round {round}: {text:?}");
        }
    }
}
