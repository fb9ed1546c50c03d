//! HTTP for Python: the parser that both ways of `gevent.pywsgi` share.

pub mod names;
mod parser;
mod websocket;

use pyo3::prelude::*;

/// Adds the classes and functions to `gevent._core`.
///
/// # Errors
/// Of the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<websocket::WebSocketCodec>()?;
    parser::register(m)
}
