//! `gevent._core`: the only crate of the workspace that knows Python.

pub mod greenlet;
pub mod thread_data;
pub mod tstate;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    use super::*;

    #[pymodule_init]
    fn init(m: &Bound<'_, PyModule>) -> PyResult<()> {
        m.add("greenlet_module", greenlet::module::make(m.py())?)
    }
}
