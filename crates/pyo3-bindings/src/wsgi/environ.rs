//! The environ: a copy of the server's, with the request's fields under interned keys. A block of fields that
//! was seen before is copied whole.
//!
//! # Safety
//! The GIL is held. `base` and `dict` are dictionaries, and the caller has a reference to each object; what is
//! `&mut self` is not reached again by what runs meanwhile.

use super::names::{cgi_name, joint};
use super::text::{decimal, interned, latin1};
use gevent_wsgi::server::Peer;
use gevent_wsgi::{Framing, Head, Version};
use pyo3::ffi::{self, PyObject};
use std::net::IpAddr;
use std::ptr::null_mut;

type Obj = *mut PyObject;

/// Slots for names of fields. Each holds one; another name in the same place replaces it.
const NAMES: usize = 512;
/// Slots for blocks of fields.
const BLOCKS: usize = 64;
/// Longer blocks are not remembered.
const LONGEST_BLOCK: usize = 2048;

/// What a field's name means for the environ.
#[derive(Clone, Copy)]
enum Meaning {
    /// This key; an owned reference.
    Key(Obj, &'static str),
    /// The length, which is left out beside chunks.
    Length(Obj),
    /// The first one counts.
    Type(Obj),
    /// Left out.
    Nothing,
}

struct Name {
    bytes: Box<[u8]>,
    meaning: Meaning,
}

#[derive(Default)]
struct Block {
    /// The hash of a block that was seen once, and is remembered when it is seen again.
    seen: u64,
    bytes: Box<[u8]>,
    /// The server's environ with the block's fields, or null; an owned reference.
    dict: Obj,
}

/// Keys and values that are the same in every request; immortal.
pub struct Keys {
    method: Obj,
    path: Obj,
    query: Obj,
    protocol: Obj,
    address: Obj,
    port: Obj,
    input: Obj,
    terminated: Obj,
    wrapper: Obj,
    host: Obj,
    http_10: Obj,
    http_11: Obj,
    empty: Obj,
    slash: Obj,
    get: Obj,
    methods: [(&'static [u8], Obj); 7],
}

impl Keys {
    /// # Safety
    /// The GIL is held.
    unsafe fn new() -> Self {
        // SAFETY: the caller's promise; strings that live for ever.
        unsafe {
            Keys {
                method: interned(c"REQUEST_METHOD"),
                path: interned(c"PATH_INFO"),
                query: interned(c"QUERY_STRING"),
                protocol: interned(c"SERVER_PROTOCOL"),
                address: interned(c"REMOTE_ADDR"),
                port: interned(c"REMOTE_PORT"),
                input: interned(c"wsgi.input"),
                terminated: interned(c"wsgi.input_terminated"),
                wrapper: interned(c"wsgi.file_wrapper"),
                host: interned(c"HTTP_HOST"),
                http_10: interned(c"HTTP/1.0"),
                http_11: interned(c"HTTP/1.1"),
                empty: interned(c""),
                slash: interned(c"/"),
                get: interned(c"GET"),
                methods: [
                    (b"POST", interned(c"POST")),
                    (b"HEAD", interned(c"HEAD")),
                    (b"PUT", interned(c"PUT")),
                    (b"DELETE", interned(c"DELETE")),
                    (b"OPTIONS", interned(c"OPTIONS")),
                    (b"PATCH", interned(c"PATCH")),
                    (b"CONNECT", interned(c"CONNECT")),
                ],
            }
        }
    }
}

/// Makes environs for one server.
pub struct Environs {
    keys: Keys,
    names: Vec<Option<Name>>,
    blocks: Vec<Block>,
    /// What the server's environ held when the template was made: pairs of borrowed pointers, which the
    /// template keeps alive.
    source: Vec<(Obj, Obj)>,
    /// The version of the server's environ that the template is of; 0 where dictionaries have none.
    version: u64,
    /// The server's environ and room for the request's keys; an owned reference or null.
    template: Obj,
    /// What `wsgi.file_wrapper` is; owned.
    wrapper: Obj,
    /// The last client's address, as text; owned or null.
    address: Option<(IpAddr, Obj)>,
}

/// A hash that is fast and good enough to choose a slot.
fn hash(bytes: &[u8]) -> u64 {
    const K: u64 = 0x517c_c1b7_2722_0a95;
    let mut h = bytes.len() as u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        h = (h.rotate_left(5) ^ word).wrapping_mul(K);
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    h = (h.rotate_left(5) ^ u64::from_le_bytes(last)).wrapping_mul(K);
    h ^ h >> 32
}

/// A number that no other dictionary has or had, and this one only while it is as it is; 0 where there is none.
///
/// # Safety
/// As the module says.
#[inline]
unsafe fn version(dict: Obj) -> u64 {
    #[cfg(not(Py_3_12))]
    // SAFETY: a dictionary, by the caller's promise.
    unsafe {
        (*dict.cast::<ffi::PyDictObject>()).ma_version_tag
    }
    #[cfg(Py_3_12)]
    {
        let _ = dict;
        0
    }
}

/// Sets an item; the value is stolen. `Err` with an error set.
///
/// # Safety
/// As the module says; `value` is an owned reference, or null with an error set.
#[inline]
unsafe fn put(dict: Obj, key: Obj, value: Obj) -> Result<(), ()> {
    if value.is_null() {
        return Err(());
    }
    // SAFETY: a dictionary and a string key; the GIL is held.
    unsafe {
        let rc = ffi::PyDict_SetItem(dict, key, value);
        ffi::Py_DECREF(value);
        if rc < 0 { Err(()) } else { Ok(()) }
    }
}

/// Sets an item to a borrowed value.
///
/// # Safety
/// As the module says.
#[inline]
unsafe fn put_ref(dict: Obj, key: Obj, value: Obj) -> Result<(), ()> {
    // SAFETY: as `put`.
    if unsafe { ffi::PyDict_SetItem(dict, key, value) } < 0 {
        Err(())
    } else {
        Ok(())
    }
}

impl Environs {
    /// # Safety
    /// The GIL is held; `wrapper` is stolen.
    pub unsafe fn new(wrapper: Obj) -> Self {
        Environs {
            // SAFETY: the caller's promise.
            keys: unsafe { Keys::new() },
            names: std::iter::repeat_with(|| None).take(NAMES).collect(),
            blocks: std::iter::repeat_with(Block::default)
                .take(BLOCKS)
                .collect(),
            source: Vec::new(),
            version: 0,
            template: null_mut(),
            wrapper,
            address: None,
        }
    }

    /// Makes the environ of a request. `base` is the server's environ, `input` (borrowed) the request's. A new
    /// reference, or null with an error set.
    ///
    /// # Safety
    /// The GIL is held; nothing here runs Python.
    pub unsafe fn make(
        &mut self,
        base: Obj,
        head: &Head,
        bytes: &[u8],
        peer: Peer,
        input: Obj,
    ) -> Obj {
        // SAFETY: the caller's promise; what is borrowed is held by the tables or the dictionary.
        unsafe {
            if self.follow(base).is_err() {
                return null_mut();
            }
            let dict = self.with_fields(head, bytes);
            if dict.is_null() {
                return dict;
            }
            if self.fill(dict, head, bytes, peer, input).is_err() {
                ffi::Py_DECREF(dict);
                return null_mut();
            }
            dict
        }
    }

    /// Sees to it that the template is what the server's environ is now.
    ///
    /// # Safety
    /// As the module says.
    unsafe fn follow(&mut self, base: Obj) -> Result<(), ()> {
        // SAFETY: a dictionary; keys and values are borrowed.
        unsafe {
            if self.version != 0 && self.version == version(base) {
                return Ok(());
            }
            let (mut at, mut n) = (0, 0);
            let (mut key, mut value) = (null_mut(), null_mut());
            let mut same = !self.template.is_null();
            while same && ffi::PyDict_Next(base, &raw mut at, &raw mut key, &raw mut value) != 0 {
                same = self.source.get(n) == Some(&(key, value));
                n += 1;
            }
            if same && n == self.source.len() {
                self.version = version(base);
                return Ok(());
            }
            self.version = 0;
            self.renew(base)
        }
    }

    /// # Safety
    /// As the module says.
    #[cold]
    unsafe fn renew(&mut self, base: Obj) -> Result<(), ()> {
        // SAFETY: the caller's promise.
        unsafe {
            for block in &mut self.blocks {
                ffi::Py_XDECREF(std::mem::replace(&mut block.dict, null_mut()));
                block.seen = 0;
            }
            ffi::Py_XDECREF(std::mem::replace(&mut self.template, null_mut()));
            self.source.clear();
            let template = ffi::PyDict_Copy(base);
            if template.is_null() {
                return Err(());
            }
            self.template = template;
            let (mut at, mut key, mut value) = (0, null_mut(), null_mut());
            while ffi::PyDict_Next(base, &raw mut at, &raw mut key, &raw mut value) != 0 {
                self.source.push((key, value));
            }
            // The server's values may be replaced and freed before the next look: the copy's are held, and
            // a value at the same address is then the same one.
            ffi::Py_INCREF(base);
            // Room for what every request has, so that copies are large enough at once.
            let k = &self.keys;
            for key in [k.method, k.path, k.query, k.address, k.port] {
                put_ref(template, key, k.empty)?;
            }
            put_ref(template, k.protocol, k.http_11)?;
            put_ref(template, k.input, ffi::Py_None())?;
            put_ref(template, k.terminated, ffi::Py_True())?;
            if ffi::PyDict_Contains(base, k.wrapper) == 0 {
                put_ref(template, k.wrapper, self.wrapper)?;
            }
            ffi::Py_DECREF(base);
            Ok(())
        }
    }

    /// A copy of the template with the request's fields.
    ///
    /// # Safety
    /// As the module says; `bytes` are those that `head` was parsed of.
    unsafe fn with_fields(&mut self, head: &Head, bytes: &[u8]) -> Obj {
        let block = &bytes[head.block as usize..];
        // SAFETY: the GIL is held; the tables own what they hold.
        unsafe {
            if block.len() > LONGEST_BLOCK || head.authority(bytes).is_some() {
                return self.build(head, bytes);
            }
            let hash = hash(block);
            let slot = hash as usize % BLOCKS;
            let known = &mut self.blocks[slot];
            if !known.dict.is_null() && *known.bytes == *block {
                return ffi::PyDict_Copy(known.dict);
            }
            let again = std::mem::replace(&mut known.seen, hash) == hash;
            let dict = self.build(head, bytes);
            if again && !dict.is_null() {
                let copy = ffi::PyDict_Copy(dict);
                if copy.is_null() {
                    ffi::PyErr_Clear();
                } else {
                    let known = &mut self.blocks[slot];
                    known.bytes = block.into();
                    ffi::Py_XDECREF(std::mem::replace(&mut known.dict, copy));
                }
            }
            dict
        }
    }

    /// # Safety
    /// As [`with_fields`](Self::with_fields).
    unsafe fn build(&mut self, head: &Head, bytes: &[u8]) -> Obj {
        // SAFETY: the caller's promise.
        unsafe {
            let dict = ffi::PyDict_Copy(self.template);
            if dict.is_null() {
                return dict;
            }
            for (at, field) in head.fields.iter().enumerate() {
                let meaning = self.meaning(field.name.of(bytes));
                let value = field.value.of(bytes);
                let done = match meaning {
                    Meaning::Nothing => Ok(()),
                    Meaning::Length(_) if head.framing == Framing::Chunked => Ok(()),
                    Meaning::Length(key) => put(dict, key, latin1(value)),
                    Meaning::Type(key) => {
                        let first = |f: &gevent_wsgi::Field| {
                            f.name.of(bytes).eq_ignore_ascii_case(b"content-type")
                        };
                        match head.fields[..at].iter().any(first) {
                            true => Ok(()),
                            false => put(dict, key, latin1(value)),
                        }
                    }
                    Meaning::Key(key, joint) => {
                        let name = field.name.of(bytes);
                        let again = head.fields[..at].iter().any(|earlier| {
                            let earlier = earlier.name.of(bytes);
                            earlier.len() == name.len() && earlier.eq_ignore_ascii_case(name)
                        });
                        if again {
                            join(dict, key, joint, value)
                        } else {
                            put(dict, key, latin1(value))
                        }
                    }
                };
                if done.is_err() {
                    ffi::Py_DECREF(dict);
                    return null_mut();
                }
            }
            if let Some(authority) = head.authority(bytes)
                && put(dict, self.keys.host, latin1(authority)).is_err()
            {
                ffi::Py_DECREF(dict);
                return null_mut();
            }
            dict
        }
    }

    /// # Safety
    /// As the module says.
    unsafe fn meaning(&mut self, name: &[u8]) -> Meaning {
        let slot = hash(name) as usize % NAMES;
        if let Some(known) = &self.names[slot]
            && *known.bytes == *name
        {
            return known.meaning;
        }
        // SAFETY: the GIL is held.
        unsafe { self.learn(slot, name) }
    }

    /// # Safety
    /// As the module says.
    #[cold]
    unsafe fn learn(&mut self, slot: usize, name: &[u8]) -> Meaning {
        // SAFETY: the GIL is held; the table owns its keys.
        unsafe {
            let meaning = match cgi_name(name) {
                None => Meaning::Nothing,
                Some(cgi) => {
                    let mut key = latin1(cgi.as_bytes());
                    if key.is_null() {
                        ffi::PyErr_Clear();
                        return Meaning::Nothing;
                    }
                    ffi::PyUnicode_InternInPlace(&raw mut key);
                    match cgi.as_str() {
                        "CONTENT_TYPE" => Meaning::Type(key),
                        "CONTENT_LENGTH" => Meaning::Length(key),
                        _ => Meaning::Key(key, joint(&cgi)),
                    }
                }
            };
            let old = self.names[slot].replace(Name {
                bytes: name.into(),
                meaning,
            });
            if let Some(Name {
                meaning: Meaning::Key(key, _) | Meaning::Length(key) | Meaning::Type(key),
                ..
            }) = old
            {
                // A key in use elsewhere has references of its own. Those of this table that are dropped
                // late by a request that is being built are held by its dictionary.
                ffi::Py_DECREF(key);
            }
            meaning
        }
    }

    /// The part that no block holds.
    ///
    /// # Safety
    /// As [`with_fields`](Self::with_fields).
    unsafe fn fill(
        &mut self,
        dict: Obj,
        head: &Head,
        bytes: &[u8],
        peer: Peer,
        input: Obj,
    ) -> Result<(), ()> {
        // SAFETY: the caller's promise.
        unsafe {
            let k = &self.keys;
            let method = head.method.of(bytes);
            if method == b"GET" {
                put_ref(dict, k.method, k.get)?;
            } else if let Some((_, known)) = k.methods.iter().find(|(m, _)| *m == method) {
                put_ref(dict, k.method, *known)?;
            } else {
                put(dict, k.method, latin1(method))?;
            }
            let (path, query) = head.path(bytes);
            if path == b"/" {
                put_ref(dict, k.path, k.slash)?;
            } else if path.contains(&b'%') {
                put(dict, k.path, latin1(&unquote(path)))?;
            } else {
                put(dict, k.path, latin1(path))?;
            }
            if !query.is_empty() {
                put(dict, k.query, latin1(query))?;
            }
            if head.version == Version::Http10 {
                put_ref(dict, k.protocol, k.http_10)?;
            }
            put_ref(dict, k.input, input)?;
            if head.upgrade {
                put_ref(dict, k.terminated, ffi::Py_False())?;
            }
            match peer {
                Peer::Internet(address) => {
                    put(dict, k.port, decimal(u64::from(address.port())))?;
                    let ip = address.ip();
                    let text = match self.address {
                        Some((known, text)) if known == ip => text,
                        _ => self.learn_address(ip)?,
                    };
                    put_ref(dict, self.keys.address, text)
                }
                Peer::Local => {
                    for key in [k.address, k.port] {
                        if ffi::PyDict_DelItem(dict, key) < 0 {
                            return Err(());
                        }
                    }
                    Ok(())
                }
            }
        }
    }

    /// # Safety
    /// As the module says.
    unsafe fn learn_address(&mut self, ip: IpAddr) -> Result<Obj, ()> {
        // SAFETY: the GIL is held; the field owns its value.
        unsafe {
            let text = latin1(ip.to_string().as_bytes());
            if text.is_null() {
                return Err(());
            }
            if let Some((_, old)) = self.address.replace((ip, text)) {
                ffi::Py_DECREF(old);
            }
            Ok(text)
        }
    }

    /// Drops all Python objects.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn clear(&mut self) {
        // SAFETY: owned references, each taken out of its place first.
        unsafe {
            for block in &mut self.blocks {
                ffi::Py_XDECREF(std::mem::replace(&mut block.dict, null_mut()));
            }
            for name in std::mem::take(&mut self.names).into_iter().flatten() {
                if let Meaning::Key(key, _) | Meaning::Length(key) | Meaning::Type(key) =
                    name.meaning
                {
                    ffi::Py_DECREF(key);
                }
            }
            self.names.resize_with(NAMES, || None);
            self.source.clear();
            ffi::Py_XDECREF(std::mem::replace(&mut self.template, null_mut()));
            if let Some((_, text)) = self.address.take() {
                ffi::Py_DECREF(text);
            }
        }
    }
}

/// Appends to a field's value.
///
/// # Safety
/// As the module says; `dict` has the key.
unsafe fn join(dict: Obj, key: Obj, joint: &str, value: &[u8]) -> Result<(), ()> {
    // SAFETY: the GIL is held; the dictionary has the key, by an earlier field.
    unsafe {
        let known = ffi::PyDict_GetItemWithError(dict, key);
        if known.is_null() {
            return put(dict, key, latin1(value));
        }
        let more = latin1(&[joint.as_bytes(), value].concat());
        if more.is_null() {
            return Err(());
        }
        let both = ffi::PyUnicode_Concat(known, more);
        ffi::Py_DECREF(more);
        put(dict, key, both)
    }
}

/// `%41` is `A`; what is no such sequence stays.
fn unquote(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        let digit = |i: usize| rest.get(i).and_then(|c| (*c as char).to_digit(16));
        match (digit(at + 1), digit(at + 2)) {
            (Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                rest = &rest[at + 3..];
            }
            _ => {
                out.push(b'%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::unquote;

    #[test]
    fn quotes() {
        assert_eq!(unquote(b"/a%20b%2fc%zz%4"), b"/a b/c%zz%4");
        assert_eq!(unquote(b"%41%41%"), b"AA%");
        assert_eq!(unquote(b"%e4"), b"\xe4");
    }
}
