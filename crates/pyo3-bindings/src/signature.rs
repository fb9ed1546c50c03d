//! Signatures for `inspect`: turns `name(a, b=1)` at the head of a docstring into the form that CPython
//! reads them from, so that native methods show their parameters as Python's do.

use pyo3::ffi::{self, PyMethodDef};
use std::ffi::{CStr, CString};

/// The docstring with its signature in CPython's form; `None` if it names no parameters, or has that form.
///
/// `first` is what a method is bound to (`$self`, `$type`), or empty.
fn signed(name: &str, doc: &str, first: &str, no_arguments: bool) -> Option<String> {
    if doc.contains("\n--\n\n") {
        return None;
    }
    let (parameters, text) = match doc.strip_prefix(name).and_then(|d| d.strip_prefix('(')) {
        Some(rest) => {
            let (head, text) = rest.split_once("\n\n")?;
            (head.rsplit_once(')')?.0, text)
        }
        None if no_arguments => ("", doc),
        None => return None,
    };
    let comma = if first.is_empty() || parameters.is_empty() {
        ""
    } else {
        ", "
    };
    Some(format!("{name}({first}{comma}{parameters})\n--\n\n{text}"))
}

/// Gives each method of a table its signature; `first` is for those that are neither of the class nor static.
pub fn sign(methods: &mut [PyMethodDef], first: &str) {
    for def in methods {
        if def.ml_name.is_null() || def.ml_doc.is_null() {
            continue;
        }
        // SAFETY: both are strings that live for ever, as the table does.
        let (name, doc) = unsafe { (CStr::from_ptr(def.ml_name), CStr::from_ptr(def.ml_doc)) };
        let (Ok(name), Ok(doc)) = (name.to_str(), doc.to_str()) else {
            continue;
        };
        let first = if def.ml_flags & ffi::METH_CLASS != 0 {
            "$type"
        } else if def.ml_flags & ffi::METH_STATIC != 0 {
            ""
        } else {
            first
        };
        let no_arguments = def.ml_flags & ffi::METH_NOARGS != 0;
        if let Some(doc) = signed(name, doc, first, no_arguments)
            && let Ok(doc) = CString::new(doc)
        {
            def.ml_doc = doc.into_raw();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::signed;

    #[test]
    fn parameters_at_the_head_become_a_signature() {
        assert_eq!(
            signed("get", "get(block=True)\n\nReturn it.", "$self", false).as_deref(),
            Some("get($self, block=True)\n--\n\nReturn it.")
        );
        assert_eq!(
            signed(
                "spawn",
                "spawn(f, *args) -> Greenlet\n\nMake one.",
                "$type",
                false
            )
            .as_deref(),
            Some("spawn($type, f, *args)\n--\n\nMake one.")
        );
        assert_eq!(
            signed("start", "start(seconds=None)\n\nStart.", "", false).as_deref(),
            Some("start(seconds=None)\n--\n\nStart.")
        );
    }

    #[test]
    fn a_method_without_parameters_has_an_empty_signature() {
        assert_eq!(
            signed("clear", "Forget it.", "$self", true).as_deref(),
            Some("clear($self)\n--\n\nForget it.")
        );
    }

    #[test]
    fn other_docstrings_stay_as_they_are() {
        assert_eq!(
            signed("f", "Says nothing of parameters.", "$self", false),
            None
        );
        assert_eq!(signed("f", "f($self)\n--\n\nHas one.", "$self", true), None);
        assert_eq!(signed("f", "f(a) without a text", "$self", false), None);
    }
}
