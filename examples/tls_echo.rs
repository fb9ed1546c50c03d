//! An echo server that speaks TLS, and reads its certificate anew at SIGHUP.
//!
//! `tls_echo CERTIFICATE KEY [PORT]` (PEM files; `GEVENT_LOOP` names the loop; ends at Ctrl-C)
//!
//! Try it with `openssl s_client -quiet -connect 127.0.0.1:16443`.

use gevent_examples::loop_from_env;
use gevent_hub_core::task;
use gevent_net::tls::{Certificates, Identity, ServerSettings, TlsListener, TlsStream};
use std::io;

fn echo(stream: &TlsStream) -> io::Result<()> {
    stream.stream().set_nodelay(true)?;
    let mut buf = vec![0; 65536];
    loop {
        match stream.recv(&mut buf)? {
            0 => return stream.shutdown(),
            n => stream.send_all(&buf[..n])?,
        }
    }
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [certificate, key, port @ ..] = &args[..] else {
        return Err(io::Error::other("usage: tls_echo CERTIFICATE KEY [PORT]"));
    };
    let port = match port.first() {
        Some(text) => text.parse().map_err(io::Error::other)?,
        None => 16443,
    };
    let certificates = Certificates::new(Identity::from_pem_files(certificate, key)?);
    let config = ServerSettings::new(certificates.clone()).build()?;
    task::run(loop_from_env()?, move || {
        let listener = TlsListener::bind(("127.0.0.1", port), config)?;
        println!("echoing on {}", listener.local_addr()?);
        task::spawn(move || {
            listener.serve(|stream, peer| {
                if let Err(e) = echo(&stream)
                    && !gevent_net::is_interrupted(&e)
                {
                    eprintln!("{peer}: {e}");
                }
            })
        });
        task::spawn(move || {
            while task::wait_signal(libc::SIGHUP).is_ok() {
                match certificates.reload() {
                    Ok(()) => println!("the certificate was read anew"),
                    Err(e) => eprintln!("the certificate stays: {e}"),
                }
            }
        });
        task::wait_signal(libc::SIGINT)
    })?
}
