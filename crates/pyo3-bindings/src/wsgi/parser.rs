//! `parse_head`, `Head` and `BodyDecoder`: the sans-IO parser, for handlers written in Python.

use super::names::{cgi_name, joint};
use gevent_wsgi::head::unfold;
use gevent_wsgi::{BodyDecoder as Decoder, Framing, Limits, Policy, Reject, Version};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyType};
use pyo3::{PyTypeInfo, create_exception};

create_exception!(
    gevent._core,
    HTTPError,
    PyValueError,
    "A request that is answered by an error; `status` is the number, `reason` says why."
);

/// The exception for a reject: `status`, `reason` and `phrase` are its attributes.
pub fn http_error(py: Python<'_>, reject: Reject) -> PyErr {
    let error = HTTPError::new_err(reject.reason);
    let value = error.value(py);
    let set = value
        .setattr("status", reject.status)
        .and_then(|()| value.setattr("reason", reject.reason))
        .and_then(|()| value.setattr("phrase", reject.phrase()));
    match set {
        Ok(()) => error,
        Err(other) => other,
    }
}

/// Bytes of HTTP as the native strings of PEP 3333.
pub fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    // SAFETY: the pointer is readable for the length; a failure to allocate is a null pointer, which panics
    // as PyO3's own strings do.
    unsafe {
        let s = pyo3::ffi::PyUnicode_DecodeLatin1(
            bytes.as_ptr().cast(),
            bytes.len() as isize,
            std::ptr::null(),
        );
        Bound::from_owned_ptr(py, s).cast_into_unchecked()
    }
}

/// The policy of a name that `WSGIServer.http` may have; ValueError for another.
pub fn policy(http: &str) -> PyResult<Policy> {
    match http {
        "strict" => Ok(Policy::Strict),
        "tolerant" => Ok(Policy::Tolerant),
        "compatible" => Ok(Policy::Compatible),
        "upstream" => Ok(Policy::Upstream),
        other => Err(PyValueError::new_err(other.to_owned())),
    }
}

/// A parsed request head.
#[pyclass(frozen, module = "gevent._core")]
pub struct Head {
    data: Box<[u8]>,
    head: gevent_wsgi::Head,
}

/// parse_head(data, *, max_headers=100, max_head=65536, max_line=8192, max_body=None, http="strict")
///
/// Parse a whole request head, from the request line through the blank line, as strictly as `http` says
/// (`WSGIServer.http`). Raises `HTTPError`.
#[crate::entry]
#[pyfunction]
#[pyo3(signature = (data, *, max_headers=100, max_head=65536, max_line=8192, max_body=None, http="strict"))]
fn parse_head(
    py: Python<'_>,
    data: &[u8],
    max_headers: usize,
    max_head: usize,
    max_line: usize,
    max_body: Option<u64>,
    http: &str,
) -> PyResult<Head> {
    let limits = Limits {
        headers: max_headers,
        head: max_head,
        line: max_line,
        body: max_body.unwrap_or(u64::MAX),
        ..Limits::default()
    };
    if data.len() > limits.head {
        return Err(http_error(py, Reject::new(431, "the head is too long")));
    }
    let policy = policy(http)?;
    let data = match policy {
        Policy::Strict => data.into(),
        _ => unfold(data),
    };
    let mut head = gevent_wsgi::Head::default();
    head.parse(&data, &limits, policy)
        .map_err(|reject| http_error(py, reject))?;
    Ok(Head {
        data: data.into(),
        head,
    })
}

#[crate::entry]
#[pymethods]
impl Head {
    /// The method: `'GET'`.
    #[getter]
    fn method<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        latin1(py, self.head.method.of(&self.data))
    }

    /// The request target as it was sent.
    #[getter]
    fn target<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        latin1(py, self.head.target.of(&self.data))
    }

    /// The path in the target, still quoted.
    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        latin1(py, self.head.path(&self.data).0)
    }

    /// The query in the target, without its question mark.
    #[getter]
    fn query<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        latin1(py, self.head.path(&self.data).1)
    }

    /// The authority of an absolute target, else None. It overrides the Host field.
    #[getter]
    fn authority<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        Some(latin1(py, self.head.authority(&self.data)?))
    }

    /// The version: `(1, 0)` or `(1, 1)`.
    #[getter]
    fn version(&self) -> (u8, u8) {
        match self.head.version {
            Version::Http10 => (1, 0),
            Version::Http11 => (1, 1),
        }
    }

    /// The fields in their order, as pairs of names and values.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyString>, Bound<'py, PyString>)> {
        self.head
            .fields
            .iter()
            .map(|f| {
                (
                    latin1(py, f.name.of(&self.data)),
                    latin1(py, f.value.of(&self.data)),
                )
            })
            .collect()
    }

    /// Whether the client lets the connection carry another request.
    #[getter]
    fn keep_alive(&self) -> bool {
        self.head.keep_alive
    }

    /// The length of the body; None without a Content-Length, or with chunks.
    #[getter]
    fn content_length(&self) -> Option<u64> {
        match self.head.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        }
    }

    /// Whether the body comes in chunks.
    #[getter]
    fn chunked(&self) -> bool {
        self.head.framing == Framing::Chunked
    }

    /// Whether the client waits for `100 Continue`.
    #[getter]
    fn expect_continue(&self) -> bool {
        self.head.expect_continue
    }

    /// Whether the client asks for another protocol.
    #[getter]
    fn upgrade(&self) -> bool {
        self.head.upgrade
    }

    /// The fields under their CGI names, those that come more than once joined, as pairs. Names with an
    /// underscore are left out, and so is a Content-Length beside chunks.
    fn environ_items<'py>(&self, py: Python<'py>) -> Vec<(String, Bound<'py, PyString>)> {
        let mut items: Vec<(String, Vec<u8>)> = Vec::with_capacity(self.head.fields.len() + 1);
        for field in &self.head.fields {
            let Some(name) = cgi_name(field.name.of(&self.data)) else {
                continue;
            };
            if name == "CONTENT_LENGTH" && self.chunked() {
                continue;
            }
            let value = field.value.of(&self.data);
            match items.iter_mut().find(|(known, _)| *known == name) {
                Some((name, _)) if name == "CONTENT_TYPE" => {}
                Some((name, known)) => {
                    known.extend_from_slice(joint(name).as_bytes());
                    known.extend_from_slice(value);
                }
                None => items.push((name, value.to_vec())),
            }
        }
        if let Some(authority) = self.head.authority(&self.data) {
            items.retain(|(name, _)| name != "HTTP_HOST");
            items.push(("HTTP_HOST".to_owned(), authority.to_vec()));
        }
        items
            .into_iter()
            .map(|(name, value)| (name, latin1(py, &value)))
            .collect()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<Head {} {}>", self.method(py), self.target(py))
    }
}

/// BodyDecoder(content_length=None, chunked=False, *, max_body=None, max_extension=8192, max_headers=100,
///             http="strict")
///
/// Takes a request's body out of the bytes that follow its head.
#[pyclass(module = "gevent._core")]
pub struct BodyDecoder {
    decoder: Decoder,
}

#[crate::entry]
#[pymethods]
impl BodyDecoder {
    #[new]
    #[pyo3(signature = (content_length=None, chunked=false, *, max_body=None, max_extension=8192,
                        max_trailers=8192, max_headers=100, http="strict"))]
    #[allow(clippy::too_many_arguments, reason = "keywords of Python")]
    fn new(
        py: Python<'_>,
        content_length: Option<u64>,
        chunked: bool,
        max_body: Option<u64>,
        max_extension: usize,
        max_trailers: usize,
        max_headers: usize,
        http: &str,
    ) -> PyResult<Self> {
        let limits = Limits {
            body: max_body.unwrap_or(u64::MAX),
            extension: max_extension,
            trailers: max_trailers,
            headers: max_headers,
            ..Limits::default()
        };
        let framing = match (chunked, content_length) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) if length > limits.body => {
                return Err(http_error(py, Reject::new(413, "the body is too long")));
            }
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::None,
        };
        Ok(BodyDecoder {
            decoder: Decoder::new(framing, &limits, policy(http)?),
        })
    }

    /// Take `data`; returns the bytes of the body in it, and how many of its bytes were used up: all, or
    /// those up to the end of the body. Raises `HTTPError`, and again at every further call.
    fn feed<'py>(
        &mut self,
        py: Python<'py>,
        data: &[u8],
    ) -> PyResult<(Bound<'py, PyBytes>, usize)> {
        let mut body = Vec::with_capacity(data.len());
        let used = self
            .decoder
            .feed(data, &mut body)
            .map_err(|reject| http_error(py, reject))?;
        Ok((PyBytes::new(py, &body), used))
    }

    /// Whether the whole body was seen.
    #[getter]
    fn done(&self) -> bool {
        self.decoder.is_done()
    }

    /// How many bytes of the body come next without framing in between.
    #[getter]
    fn direct(&self) -> u64 {
        self.decoder.direct()
    }

    /// How many bytes are left of a body with a length; None for chunks.
    #[getter]
    fn left(&self) -> Option<u64> {
        self.decoder.left()
    }

    /// The trailer fields so far, as pairs.
    #[getter]
    fn trailers<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyString>, Bound<'py, PyString>)> {
        self.decoder
            .trailers()
            .map(|(name, value)| (latin1(py, name), latin1(py, value)))
            .collect()
    }
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    let error: Bound<'_, PyType> = HTTPError::type_object(py);
    error.setattr("status", 400)?;
    error.setattr("reason", "")?;
    error.setattr("phrase", "Bad Request")?;
    m.add("HTTPError", error)?;
    m.add_class::<Head>()?;
    m.add_class::<BodyDecoder>()?;
    m.add_function(wrap_pyfunction!(parse_head, m)?)
}
