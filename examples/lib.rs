//! What the examples share: the loop that `GEVENT_LOOP` names, and a small HTTP client.
//!
//! `GEVENT_LOOP` is `epoll`, `uring`, `kqueue`, `auto`, or a list of these in order of preference, as for the Python
//! package; unset means `auto`, which is epoll.

pub mod http;

use gevent_hub_core::event_loop::Loop;
use gevent_loop_epoll::EpollLoop;
use gevent_loop_kqueue::KqueueLoop;
use gevent_loop_uring::UringLoop;
use std::io;

/// The first of the loops named by `GEVENT_LOOP` that this machine has.
///
/// # Errors
/// Of the last loop that was tried; `InvalidInput` for a name that is none.
pub fn loop_from_env() -> io::Result<Box<dyn Loop>> {
    pick(&std::env::var("GEVENT_LOOP").unwrap_or_default())
}

fn pick(names: &str) -> io::Result<Box<dyn Loop>> {
    let mut refused = None;
    for name in names.split([',', ' ']).filter(|n| !n.is_empty()) {
        match by_name(name) {
            Ok(found) => return Ok(found),
            Err(e) => refused = Some(io::Error::new(e.kind(), format!("{name}: {e}"))),
        }
    }
    match refused {
        Some(e) => Err(e),
        None => by_name("auto"),
    }
}

fn by_name(name: &str) -> io::Result<Box<dyn Loop>> {
    match name {
        "auto" | "epoll" => Ok(Box::new(EpollLoop::new()?)),
        "uring" => Ok(Box::new(UringLoop::new()?)),
        "kqueue" => Ok(Box::new(KqueueLoop::new()?)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no such event loop",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_tried_in_order() {
        assert_eq!(pick("").unwrap().caps().name, "epoll");
        assert_eq!(pick("nonesuch, epoll").unwrap().caps().name, "epoll");
        let unknown = pick("nonesuch").err().unwrap();
        assert_eq!(unknown.to_string(), "nonesuch: no such event loop");
    }
}
