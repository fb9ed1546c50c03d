//! Runs every case of the suite on every loop, and compares the traces of each case between the loops.
//!
//! Arguments as of any test binary; a test's name is `loop::module::case`. Ends with how many cases ran on which
//! loop.

use gevent_conformance::{Case, Run, cases, trace};
use gevent_hub_core::event_loop::Loop;
use gevent_hub_core::reactor::Reactor;
use gevent_hub_core::sim::Sim;
use gevent_loop_kqueue::KqueueLoop;
use gevent_mio_loop::MioLoop;
use libtest_mimic::{Arguments, Trial};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

type Make = fn() -> io::Result<Box<dyn Loop>>;

/// Each loop that this system may have, by name.
const LOOPS: &[(&str, Make)] = &[
    #[cfg(target_os = "linux")]
    ("epoll", || {
        Ok(Box::new(gevent_loop_epoll::EpollLoop::new()?))
    }),
    #[cfg(target_os = "linux")]
    ("uring", || {
        Ok(Box::new(gevent_loop_uring::UringLoop::new()?))
    }),
    #[cfg(target_os = "linux")]
    ("uring-6.1", || ring_without(LINUX_6_1)),
    #[cfg(target_os = "linux")]
    ("uring-5.13", || ring_without(LINUX_5_13)),
    ("kqueue", || Ok(Box::new(KqueueLoop::new()?))),
    ("mio", || Ok(Box::new(MioLoop::new()?))),
];

/// What Linux 6.1 lacks: an array of indices, relative timeouts, waits that count as I/O.
#[cfg(target_os = "linux")]
const LINUX_6_1: &[&str] = &["no_sqarray", "min_timeout", "no_iowait"];
/// What Linux 5.13 lacks, the oldest that will do: no flags at all, no operations on paths, each cancel
/// completes.
#[cfg(target_os = "linux")]
const LINUX_5_13: &[&str] = &[
    "no_sqarray",
    "defer_taskrun",
    "coop_taskrun",
    "submit_all",
    "min_timeout",
    "no_iowait",
    "cqe_skip",
    "openat",
];

/// The io_uring loop as it is on an older kernel.
#[cfg(target_os = "linux")]
fn ring_without(names: &'static [&'static str]) -> io::Result<Box<dyn Loop>> {
    use gevent_loop_uring::{Lacking, UringLoop};
    let errors = Vec::new();
    Ok(Box::new(UringLoop::lacking(Lacking { names, errors })?))
}

/// The first trace of each case and the loop that it is of, and how many agreed with it.
#[derive(Default)]
struct Traces {
    first: HashMap<&'static str, (&'static str, Vec<String>)>,
    ran: HashMap<&'static str, usize>,
    compared: usize,
}

type Shared = Arc<Mutex<Traces>>;

fn compare(all: &Shared, case: &Case, name: &'static str, got: Vec<String>) -> Result<(), String> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    *all.ran.entry(name).or_default() += 1;
    let (of, first) = all
        .first
        .entry(case.name)
        .or_insert_with(|| (name, got.clone()));
    if *first != got {
        return Err(format!(
            "the traces differ:\n  {of}: {first:#?}\n  {name}: {got:#?}"
        ));
    }
    all.compared += usize::from(*of != name);
    Ok(())
}

fn on_loop(all: &Shared, case: Case, name: &'static str, make: Make) -> Trial {
    let all = all.clone();
    Trial::test(format!("{name}::{}", case.name), move || {
        let got = case.trace_on(&|| make().expect("it could be made a moment ago"));
        compare(&all, &case, name, got).map_err(Into::into)
    })
}

fn on_the_fake_loop(all: &Shared, case: Case) -> Option<Trial> {
    let Run::AnyReactor(run) = case.run else {
        return None;
    };
    let all = all.clone();
    Some(Trial::test(format!("sim::{}", case.name), move || {
        trace::begin();
        run(&|| Reactor::for_tests(&Sim::new()));
        compare(&all, &case, "sim", trace::end()).map_err(Into::into)
    }))
}

fn main() {
    let all = Shared::default();
    let mut trials = Vec::new();
    let cases = cases();
    for &(name, make) in LOOPS {
        let refusal = make().err();
        if let Some(e) = &refusal {
            println!("skipped: {name} ({e})");
        }
        let of_loop = cases.iter().map(|c| on_loop(&all, *c, name, make));
        trials.extend(of_loop.map(|t| t.with_ignored_flag(refusal.is_some())));
    }
    trials.extend(cases.iter().filter_map(|c| on_the_fake_loop(&all, *c)));
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    let all = all.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ran: Vec<_> = all.ran.iter().map(|(n, c)| format!("{n} {c}")).collect();
    ran.sort();
    println!(
        "{} cases; ran: {}; {} traces compared with another loop's",
        cases.len(),
        ran.join(", "),
        all.compared
    );
    drop(all);
    conclusion.exit();
}
