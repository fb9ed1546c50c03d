//! HTTP for Python: the parser that both ways of `gevent.pywsgi` share, and the native server.

#![allow(
    missing_docs,
    reason = "the types of this folder are for each other; what Python sees has its docstrings"
)]

mod app;
mod callable;
mod core;
mod environ;
mod exchange;
mod file_wrapper;
mod input;
mod log;
pub mod names;
mod parser;
mod piece;
mod raise;
mod sending;
mod session;
mod start;
mod text;
mod tunnel;
mod websocket;

use pyo3::prelude::*;

/// Adds the classes and functions to `gevent._core`.
///
/// # Errors
/// Of the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<websocket::WebSocketCodec>()?;
    parser::register(m)?;
    exchange::register(m.py())?;
    session::register(m.py())?;
    file_wrapper::register(m)?;
    input::register(m)?;
    core::register(m)
}
