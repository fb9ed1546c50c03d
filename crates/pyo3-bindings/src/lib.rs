//! `gevent._core`: the only crate of the workspace that knows Python.

use pyo3::prelude::*;

#[pymodule]
mod _core {}
