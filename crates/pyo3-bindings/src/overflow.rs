//! An overflowing greenlet's last words: the signal handler of hub-core, told how greenlets are called.

use crate::thread_data::ThreadData;
use gevent_hub_core::stack;
use std::fmt::Write;

/// Installs the handler, for this process. A platform that refuses it crashes without a sentence, as others do.
pub fn install() {
    stack::set_fiber_namer(name);
    let _ = stack::install_guard_handler();
}

/// To be called once in each thread that has greenlets.
pub fn prepare_thread() {
    let _ = stack::guard_this_thread();
}

/// A piece of memory to format into.
struct Buffer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl Write for Buffer<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let n = text.len().min(self.out.len() - self.len);
        self.out[self.len..self.len + n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// The running greenlet as its `repr` begins, by its address: nothing else can be asked in a signal handler.
fn name(out: &mut [u8]) -> usize {
    let mut buffer = Buffer { out, len: 0 };
    match ThreadData::running_greenlet() {
        0 => buffer.write_str("(unknown)"),
        address => write!(buffer, "at {address:#x}"),
    }
    .map_or(0, |()| buffer.len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_does_not_fit_is_cut() {
        let mut out = [0; 4];
        let mut buffer = Buffer {
            out: &mut out,
            len: 0,
        };
        write!(buffer, "{}", 123_456).unwrap();
        assert_eq!((buffer.len, &out), (4, b"1234"));
    }
}
