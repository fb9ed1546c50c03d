//! An echo server: a task for each connection, and its bytes back.
//!
//! `echo [PORT]` (`GEVENT_LOOP` names the loop; ends at Ctrl-C)

use gevent_examples::loop_from_env;
use gevent_hub_core::task;
use gevent_net::{TcpListener, TcpStream};
use std::io;

fn echo(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buf = vec![0; 65536];
    loop {
        match stream.recv(&mut buf)? {
            0 => return Ok(()),
            n => stream.send_all(&buf[..n])?,
        }
    }
}

fn main() -> io::Result<()> {
    let port = match std::env::args().nth(1) {
        Some(text) => text.parse().map_err(io::Error::other)?,
        None => 16000,
    };
    let backend = loop_from_env()?;
    let name = backend.caps().name;
    task::run(backend, move || {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        println!("echoing on {} by {name}", listener.local_addr()?);
        task::spawn(move || {
            listener.serve(|stream, peer| {
                if let Err(e) = echo(&stream)
                    && !gevent_net::is_interrupted(&e)
                {
                    eprintln!("{peer}: {e}");
                }
            })
        });
        task::wait_signal(libc::SIGINT)
    })?
}
