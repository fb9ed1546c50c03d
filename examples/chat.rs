//! A chat room: what somebody says, everybody else hears. Try it with `nc 127.0.0.1 16001`.
//!
//! `chat [PORT]` (`GEVENT_LOOP` names the loop; ends at Ctrl-C)
//!
//! Each guest has two tasks: one reads lines, the other sends what waits in the guest's queue. A guest that
//! does not read fills that queue, and then misses lines; nobody waits for them.

use gevent_examples::loop_from_env;
use gevent_hub_core::task;
use gevent_net::{TcpListener, TcpStream};
use gevent_sync::{Fifo, Queue};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::net::Shutdown;
use std::rc::Rc;

/// Lines that a guest may be behind.
const BACKLOG: usize = 100;

type Outbox = Rc<Queue<Fifo<Rc<str>>>>;

/// Who is there. All tasks are on one thread, and no borrow is held where one waits.
#[derive(Clone, Default)]
struct Room {
    guests: Rc<RefCell<BTreeMap<u64, Outbox>>>,
    next: Rc<Cell<u64>>,
}

impl Room {
    fn enter(&self) -> (u64, Outbox) {
        let id = self.next.replace(self.next.get() + 1);
        let outbox = Outbox::new(Queue::bounded(BACKLOG));
        self.guests.borrow_mut().insert(id, outbox.clone());
        (id, outbox)
    }

    fn leave(&self, id: u64) {
        if let Some(outbox) = self.guests.borrow_mut().remove(&id) {
            outbox.close();
        }
    }

    fn tell_others(&self, id: u64, line: &str) {
        let line: Rc<str> = line.into();
        for (_, outbox) in self.guests.borrow().iter().filter(|(g, _)| **g != id) {
            // A full one: that guest misses the line.
            let _ = outbox.try_put(line.clone());
        }
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let stream = Rc::new(stream);
        let (id, outbox) = self.enter();
        let out = stream.clone();
        let sender = task::spawn(move || {
            while let Ok(line) = outbox.get() {
                if out.send_all(line.as_bytes()).is_err() {
                    break;
                }
            }
            let _ = out.shutdown(Shutdown::Both);
        });
        let heard = self.listen(id, &stream);
        self.leave(id);
        self.tell_others(id, &format!("* {id} has left\n"));
        let _ = sender.wait();
        heard
    }

    fn listen(&self, id: u64, stream: &TcpStream) -> io::Result<()> {
        self.tell_others(id, &format!("* {id} has come\n"));
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        while lines.read_line(&mut line)? > 0 {
            self.tell_others(id, &format!("{id}: {}\n", line.trim_end()));
            line.clear();
        }
        Ok(())
    }
}

fn open(listener: TcpListener) {
    let room = Room::default();
    task::spawn(move || {
        listener.serve(move |stream, peer| {
            if let Err(e) = room.serve(stream) {
                eprintln!("{peer}: {e}");
            }
        })
    });
}

fn main() -> io::Result<()> {
    let port = match std::env::args().nth(1) {
        Some(text) => text.parse().map_err(io::Error::other)?,
        None => 16001,
    };
    task::run(loop_from_env()?, move || {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        println!("chatting on {}", listener.local_addr()?);
        open(listener);
        task::wait_signal(libc::SIGINT)
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_hear_each_other_come_speak_and_go() {
        task::run(loop_from_env().unwrap(), || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            open(listener);
            let first = TcpStream::connect(addr).unwrap();
            let mut hears = BufReader::new(&first).lines().map(Result::unwrap);
            // The first is in the room when its own connection has been served.
            task::yield_now().unwrap();
            let second = TcpStream::connect(addr).unwrap();
            assert_eq!(hears.next().unwrap(), "* 1 has come");
            second.send_all(b"hello\r\nbye").unwrap();
            second.shutdown(Shutdown::Write).unwrap();
            assert_eq!(hears.next().unwrap(), "1: hello");
            assert_eq!(hears.next().unwrap(), "1: bye");
            assert_eq!(hears.next().unwrap(), "* 1 has left");
            assert_eq!(second.recv(&mut [0; 8]).unwrap(), 0);
        })
        .unwrap();
    }
}
