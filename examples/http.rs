//! As much of an HTTP client as the examples need: GET, one connection a request, http and https.

use gevent_net::TcpStream;
use gevent_net::tls::{ClientSettings, TlsStream, system_roots};
use std::io::{self, Read, Write};

/// The parts of an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    /// Whether it is https.
    pub secure: bool,
    /// The name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// From the first slash on, without the fragment.
    pub path: String,
}

impl Url {
    /// Takes `http://host:port/path` apart; `None` if it is something else.
    pub fn parse(text: &str) -> Option<Url> {
        let (secure, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else {
            (false, text.strip_prefix("http://")?)
        };
        let rest = rest.split('#').next()?;
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, if secure { 443 } else { 80 }),
        };
        Some(Url {
            secure,
            host: host.to_owned(),
            port,
            path: if path.is_empty() { "/" } else { path }.to_owned(),
        })
        .filter(|url| !url.host.is_empty())
    }

    /// What `link`, found on this page, leads to.
    pub fn join(&self, link: &str) -> Option<Url> {
        if link.contains("://") {
            return Url::parse(link);
        }
        let link = link.split('#').next()?;
        if link.is_empty() || link.contains(':') {
            return None;
        }
        let folder = &self.path[..=self.path.rfind('/')?];
        let path = if link.starts_with('/') {
            link.to_owned()
        } else {
            format!("{folder}{link}")
        };
        Some(Url {
            path,
            ..self.clone()
        })
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

/// What a server sent.
#[derive(Debug)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    /// Names in small letters, and values.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of that name, in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Fetches `url`.
///
/// # Errors
/// Of the connection; `InvalidData` for an answer that is none, or that ends early.
pub fn get(url: &Url) -> io::Result<Answer> {
    let address = (url.host.as_str(), url.port);
    if url.secure {
        let config = ClientSettings::new(system_roots()?).build()?;
        exchange(&mut TlsStream::connect(address, config)?, url)
    } else {
        exchange(&mut TcpStream::connect(address)?, url)
    }
}

fn exchange(stream: &mut (impl Read + Write), url: &Url) -> io::Result<Answer> {
    let (path, host) = (&url.path, &url.host);
    let agent = "User-Agent: gevent-example\r\nAccept: */*\r\nConnection: close\r\n";
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{agent}\r\n").as_bytes())?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    understand(&all)
}

fn broken(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

fn understand(all: &[u8]) -> io::Result<Answer> {
    let mut room = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Response::new(&mut room);
    let httparse::Status::Complete(at) = head.parse(all).map_err(broken)? else {
        return Err(broken("the answer ends within its head"));
    };
    let headers = head.headers.iter().map(|h| {
        let value = String::from_utf8_lossy(h.value).trim().to_owned();
        (h.name.to_ascii_lowercase(), value)
    });
    let mut answer = Answer {
        status: head.code.unwrap_or(0),
        headers: headers.collect(),
        body: Vec::new(),
    };
    let body = &all[at..];
    answer.body = if answer.header("transfer-encoding").is_some() {
        unchunked(body)?
    } else {
        let length = answer.header("content-length").map(str::parse);
        let length = length.transpose().map_err(broken)?.unwrap_or(body.len());
        let whole = body.get(..length);
        whole.ok_or_else(|| broken("the body ends early"))?.to_vec()
    };
    Ok(answer)
}

fn unchunked(mut rest: &[u8]) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let (at, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete((at, size))) => (at, size as usize),
            _ => return Err(broken("a chunk without its size")),
        };
        if size == 0 {
            return Ok(body);
        }
        let chunk = rest.get(at..at + size + 2);
        let chunk = chunk.ok_or_else(|| broken("a chunk ends early"))?;
        body.extend_from_slice(&chunk[..size]);
        rest = &rest[at + size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_and_joined() {
        let url = Url::parse("http://example.org/a/b?c#d").unwrap();
        assert_eq!(url.to_string(), "http://example.org:80/a/b?c");
        assert_eq!(url.join("x").unwrap().path, "/a/x");
        assert_eq!(url.join("/x#y").unwrap().path, "/x");
        assert_eq!(url.join("https://other/").unwrap().port, 443);
        assert_eq!(url.join("mailto:someone"), None);
        assert_eq!(url.join("#here"), None);
        assert_eq!(Url::parse("http://host:8080").unwrap().path, "/");
        assert_eq!(Url::parse("ftp://host/"), None);
        assert_eq!(Url::parse("http:///"), None);
    }

    #[test]
    fn bodies_end_where_they_should() {
        let of = |text: &str| understand(text.as_bytes()).map(|a| (a.status, a.body));
        let got = of("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!").unwrap();
        assert_eq!(got, (200, b"hi".to_vec()));
        let got = of(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1;x\r\n!\r\n0\r\n\r\n",
        );
        assert_eq!(got.unwrap().1, b"hi!");
        assert_eq!(
            of("HTTP/1.0 404 No\r\n\r\nrest").unwrap(),
            (404, b"rest".to_vec())
        );
        assert!(of("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi").is_err());
        assert!(of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi").is_err());
        assert!(of("HTTP/1.1 200").is_err());
    }
}
