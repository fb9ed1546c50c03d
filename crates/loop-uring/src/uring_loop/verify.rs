//! Events that may not be true, and poll(2), which says.

use super::UringLoop;
use crate::requests::What;
use crate::sqe;
use gevent_hub_core::event_loop::{Event, Mode, Readiness};
use std::mem;

impl UringLoop {
    /// Asks poll(2) about events, of those after `before`, that may not be true; all of them in one call.
    ///
    /// A request keeps what it was woken with. So a level-triggered event that is `old` may have been
    /// consumed since, and is taken back; and PRI, with which sockets wake their pollers whatever has come,
    /// would have its hearers look for urgent data in vain at each message.
    pub(super) fn verify(&mut self, before: usize, out: &mut Vec<Event>, old: bool) {
        let mut asked = mem::take(&mut self.asked);
        asked.clear();
        for (place, event) in out.iter().enumerate().skip(before) {
            if let Event::Ready(key, ready) = event
                && (old || ready.has(Readiness::PRI))
                && let Some(index) = self.requests.watch(*key)
                && let r = self.requests.get(index)
                && let What::Watch { want, mode, .. } = r.what
            {
                let events = match mode {
                    Mode::Level if old => sqe::poll_mask(want) as i16,
                    Mode::Edge if ready.has(Readiness::PRI) => libc::POLLPRI,
                    _ => continue,
                };
                let question = libc::pollfd {
                    fd: r.fd,
                    events,
                    revents: 0,
                };
                asked.push((place, question));
            }
        }
        if !asked.is_empty() {
            self.ask(&mut asked);
            for &(place, answer) in asked.iter().rev() {
                let now = sqe::readiness(u32::from(answer.revents as u16));
                let Event::Ready(_, ready) = &mut out[place] else {
                    continue;
                };
                if answer.events == libc::POLLPRI {
                    *ready = ready.without(Readiness::PRI).with(now);
                } else if now.is_empty() {
                    out.remove(place);
                } else {
                    *ready = now;
                }
            }
        }
        self.asked = asked;
    }

    /// One poll(2) that does not wait.
    fn ask(&mut self, asked: &mut [(usize, libc::pollfd)]) {
        self.ring.syscalls += 1;
        let mut questions: Vec<_> = asked.iter().map(|(_, question)| *question).collect();
        let n = questions.len() as libc::nfds_t;
        // SAFETY: as many valid entries as it is told.
        let answered = unsafe { libc::poll(questions.as_mut_ptr(), n, 0) } >= 0;
        for ((_, question), answer) in asked.iter_mut().zip(questions) {
            // Without an answer everything stays as it was told.
            question.revents = if answered {
                answer.revents
            } else {
                answer.events
            };
        }
    }
}
