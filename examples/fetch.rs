//! An HTTP client: fetches all addresses that it is given at the same time.
//!
//! fetch URL...        (http and https; GEVENT_LOOP names the loop)

use gevent_examples::{http, loop_from_env};
use gevent_hub_core::task;
use std::io;
use std::process::ExitCode;
use std::time::Instant;

fn fetch(text: &str) -> io::Result<String> {
    let url = http::Url::parse(text).ok_or_else(|| io::Error::other("not an address"))?;
    let begun = Instant::now();
    let answer = http::get(&url)?;
    let kind = answer.header("content-type").unwrap_or("unknown");
    Ok(format!(
        "{} {} bytes of {kind} in {:.0?}",
        answer.status,
        answer.body.len(),
        begun.elapsed()
    ))
}

fn main() -> io::Result<ExitCode> {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    if urls.is_empty() {
        return Err(io::Error::other("usage: fetch URL..."));
    }
    let failed = task::run(loop_from_env()?, move || {
        let tasks: Vec<_> = urls
            .into_iter()
            .map(|url| task::spawn(move || (fetch(&url), url)))
            .collect();
        let mut failed = 0;
        for task in tasks {
            match task.join() {
                Ok((Ok(text), url)) => println!("{url}: {text}"),
                Ok((Err(e), url)) => {
                    failed += 1;
                    eprintln!("{url}: {e}");
                }
                Err(e) => {
                    failed += 1;
                    eprintln!("{e}");
                }
            }
        }
        failed
    })?;
    Ok(ExitCode::from(u8::from(failed > 0)))
}
