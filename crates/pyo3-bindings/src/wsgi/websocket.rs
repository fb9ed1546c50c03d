//! `WebSocketCodec`: the sans-IO WebSocket, for `gevent.websocket`.

use gevent_wsgi::websocket::deflate::WORTHWHILE;
use gevent_wsgi::websocket::{Decoder, Deflate, Event, Opcode, encode, may_be_sent};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

/// The kind of the last thing that a client did wrong, beside the opcodes.
const VIOLATION: i8 = -1;

/// WebSocketCodec(max_message=16777216, extensions='')
///
/// Turns a client's bytes into messages and messages into frames. `extensions` is what the client offered in
/// `Sec-WebSocket-Extensions`; attribute `extensions` is what to answer, or None.
#[pyclass(module = "gevent._core")]
pub struct WebSocketCodec {
    decoder: Decoder,
    deflate: Option<Deflate>,
    extensions: Option<String>,
}

#[crate::entry]
#[pymethods]
impl WebSocketCodec {
    #[new]
    #[pyo3(signature = (max_message=16_777_216, extensions=""))]
    fn new(max_message: usize, extensions: &str) -> Self {
        let (deflate, extensions) = Deflate::negotiate(extensions).unzip();
        WebSocketCodec {
            decoder: Decoder::new(max_message, deflate.is_some()),
            deflate,
            extensions,
        }
    }

    /// What was agreed on, for the answer's field.
    #[getter]
    fn extensions(&self) -> Option<&str> {
        self.extensions.as_deref()
    }

    /// Take bytes; a list of pairs comes out: an opcode and what goes with it. That is text or bytes; for a
    /// close its code (or None) and reason; and for -1, a violation of the protocol, the code to close with
    /// and the reason.
    fn feed<'py>(&mut self, py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyList>> {
        let events = PyList::empty(py);
        let mut input = data;
        loop {
            let (kind, value) = match self.decoder.next(&mut input) {
                Ok(None) => return Ok(events),
                Ok(Some(event)) => event_value(py, event)?,
                Err(violation) => {
                    let value = (violation.code, violation.reason).into_pyobject(py)?;
                    events.append((VIOLATION, value))?;
                    return Ok(events);
                }
            };
            events.append((kind, value))?;
        }
    }

    /// A frame of a whole message, or a control frame: `payload` is text (put out as UTF-8) or bytes.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        opcode: u8,
        payload: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let opcode =
            Opcode::new(opcode).ok_or_else(|| PyValueError::new_err("an unknown opcode"))?;
        let buffer;
        let payload = if let Ok(text) = payload.cast::<PyString>() {
            text.to_str()?.as_bytes()
        } else if let Ok(bytes) = payload.cast::<PyBytes>() {
            bytes.as_bytes()
        } else {
            buffer = pyo3::buffer::PyBuffer::<u8>::get(payload)
                .map_err(|_| PyTypeError::new_err("text or bytes are sent"))?
                .to_vec(py)?;
            &buffer
        };
        if opcode.is_control() && payload.len() > 125 {
            return Err(PyValueError::new_err(
                "a control frame holds 125 bytes at most",
            ));
        }
        let packed = match self.deflate {
            Some(deflate) if !opcode.is_control() && payload.len() >= WORTHWHILE => {
                Some(deflate.compress(payload))
            }
            _ => None,
        };
        let frame = match &packed {
            Some(packed) if packed.len() < payload.len() => encode::frame(opcode, packed, true),
            _ => encode::frame(opcode, payload, false),
        };
        Ok(PyBytes::new(py, &frame))
    }

    /// A Close frame; a code of None makes an empty one.
    #[staticmethod]
    #[pyo3(signature = (code=1000, reason=""))]
    fn encode_close<'py>(
        py: Python<'py>,
        code: Option<u16>,
        reason: &str,
    ) -> PyResult<Bound<'py, PyBytes>> {
        if code.is_some_and(|code| !may_be_sent(code)) {
            return Err(PyValueError::new_err("a close code that nobody may send"));
        }
        Ok(PyBytes::new(py, &encode::close(code, reason)))
    }
}

fn event_value(py: Python<'_>, event: Event) -> PyResult<(i8, Bound<'_, PyAny>)> {
    let bytes = |data: &[u8]| PyBytes::new(py, data).into_any();
    Ok(match event {
        Event::Text(text) => (Opcode::Text as i8, PyString::new(py, &text).into_any()),
        Event::Binary(data) => (Opcode::Binary as i8, bytes(&data)),
        Event::Ping(data) => (Opcode::Ping as i8, bytes(&data)),
        Event::Pong(data) => (Opcode::Pong as i8, bytes(&data)),
        Event::Close(code, reason) => {
            let pair: Bound<'_, PyTuple> = (code, reason).into_pyobject(py)?;
            (Opcode::Close as i8, pair.into_any())
        }
    })
}
