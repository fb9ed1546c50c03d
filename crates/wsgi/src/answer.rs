//! Answers: status lines, fields, chunks, and the date, as bytes.

use crate::reject::Reject;
use std::cell::Cell;
use std::io::Write;

/// The answer to a request that was refused: no body, and the connection closes.
pub fn refusal(reject: Reject) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    let _ = write!(
        out,
        "HTTP/1.1 {} {}\r\nConnection: close\r\nContent-Length: 0\r\nDate: ",
        reject.status,
        reject.phrase()
    );
    out.extend_from_slice(&http_date());
    out.extend_from_slice(b"\r\n\r\n");
    out
}

/// Appends the line in front of a chunk of so many bytes, which is not 0.
pub fn chunk_size(out: &mut Vec<u8>, length: usize) {
    push_radix(out, length, 16);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal.
pub fn decimal(out: &mut Vec<u8>, n: usize) {
    push_radix(out, n, 10);
}

fn push_radix(out: &mut Vec<u8>, n: usize, radix: u64) {
    out.extend_from_slice(digits(&mut [0; 20], n as u64, radix));
}

/// A number's digits, which are written into `room`. The radix is 10 to 16.
#[inline]
pub fn digits(room: &mut [u8; 20], mut n: u64, radix: u64) -> &[u8] {
    let mut at = room.len();
    loop {
        at -= 1;
        room[at] = b"0123456789abcdef"[(n % radix) as usize];
        n /= radix;
        if n == 0 {
            return &room[at..];
        }
    }
}

/// A date as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub type HttpDate = [u8; 29];

thread_local! {
    static DATE: Cell<(i64, HttpDate)> = const { Cell::new((-1, [0; 29])) };
}

/// The present date. It is made anew once a second.
pub fn http_date() -> HttpDate {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    #[cfg(target_os = "linux")]
    const CLOCK: libc::clockid_t = libc::CLOCK_REALTIME_COARSE;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_REALTIME;
    // SAFETY: `now` outlives the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(CLOCK, &mut now) };
    let (second, date) = DATE.get();
    if second == now.tv_sec {
        return date;
    }
    let date = format_date(now.tv_sec);
    DATE.set((now.tv_sec, date));
    date
}

/// The date of a moment in seconds since 1970 (RFC 9110 §5.6.7).
pub fn format_date(seconds: i64) -> HttpDate {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, rest) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    // Days since 0000-03-01, in eras of 400 years: leap days are at the end then.
    let z = days + 719_468;
    let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    let mut out = [0; 29];
    let _ = write!(
        &mut out[..],
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        DAYS[days.rem_euclid(7) as usize],
        MONTHS[month as usize],
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&format_date(seconds)).unwrap(), text);
        }
        assert_eq!(http_date(), http_date());
    }

    #[test]
    fn numbers() {
        let mut out = Vec::new();
        chunk_size(&mut out, 255);
        chunk_size(&mut out, 16);
        decimal(&mut out, 1024);
        assert_eq!(out, b"ff\r\n10\r\n1024");
    }
}
