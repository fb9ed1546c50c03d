//! A crawler: follows the links of a site, several at a time, and reports the ones that are broken.
//!
//! `crawler URL [TASKS]` (stays on the host of URL; `GEVENT_LOOP` names the loop)

use gevent_examples::http::{self, Url};
use gevent_examples::loop_from_env;
use gevent_hub_core::task;
use gevent_sync::{Fifo, Queue};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

/// Pages at most: some sites never end.
const PAGES: usize = 10_000;

struct Crawl {
    start: Url,
    queue: Queue<Fifo<Url>>,
    /// All tasks are on one thread, and no borrow is held where one waits.
    seen: RefCell<BTreeSet<Url>>,
    broken: RefCell<Vec<String>>,
}

impl Crawl {
    fn found(&self, url: Url) {
        let same = (&url.host, url.port) == (&self.start.host, self.start.port);
        let mut seen = self.seen.borrow_mut();
        if same && seen.len() < PAGES && seen.insert(url.clone()) {
            drop(seen);
            let _ = self.queue.try_put(url);
        }
    }

    fn visit(&self, url: &Url) {
        let problem = match http::get(url) {
            Ok(answer) if answer.status == 200 => {
                println!("{url}");
                let text = String::from_utf8_lossy(&answer.body);
                links(&text)
                    .filter_map(|link| url.join(link))
                    .for_each(|url| self.found(url));
                return;
            }
            Ok(answer) if matches!(answer.status, 301 | 302 | 303 | 307 | 308) => {
                if let Some(to) = answer.header("location").and_then(|l| url.join(l)) {
                    self.found(to);
                }
                return;
            }
            Ok(answer) => answer.status.to_string(),
            Err(e) => e.to_string(),
        };
        self.broken.borrow_mut().push(format!("{url}: {problem}"));
    }

    fn work(&self) {
        while let Ok(url) = self.queue.get() {
            self.visit(&url);
            self.queue.task_done();
        }
    }
}

/// The values of `href="..."`; good enough for an example.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("href=\"")
        .skip(1)
        .filter_map(|part| part.split('"').next())
}

fn main() -> io::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let start = args.next().and_then(|text| Url::parse(&text));
    let start = start.ok_or_else(|| io::Error::other("usage: crawler URL [TASKS]"))?;
    let tasks: usize = match args.next() {
        Some(text) => text.parse().map_err(io::Error::other)?,
        None => 10,
    };
    let broken = task::run(loop_from_env()?, move || {
        let crawl = Rc::new(Crawl {
            start: start.clone(),
            queue: Queue::unbounded(),
            seen: RefCell::default(),
            broken: RefCell::default(),
        });
        crawl.found(start);
        for _ in 0..tasks {
            let crawl = crawl.clone();
            task::spawn(move || crawl.work());
        }
        // Until everything that was put has been dealt with.
        let _ = crawl.queue.join(None);
        crawl.queue.close();
        println!(
            "{} pages",
            crawl.seen.borrow().len() - crawl.broken.borrow().len()
        );
        crawl.broken.take()
    })?;
    for line in &broken {
        eprintln!("broken: {line}");
    }
    Ok(ExitCode::from(u8::from(!broken.is_empty())))
}
