//! How much of everything a client may send, and how much of the past is put up with.

/// Limits of one request. The defaults suit a server on the open network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the request line; more is 414. Upstream's limit.
    pub line: usize,
    /// Bytes of the whole head, request line and blank line included; more is 431.
    pub head: usize,
    /// Header fields, and as many trailer fields; more is 431. What `http.client` allows.
    pub headers: usize,
    /// Bytes of the body; more is 413. Without a limit as upstream.
    pub body: u64,
    /// Bytes of chunk extensions beyond what the chunks' own size makes up for; more is 400.
    pub extension: usize,
    /// Bytes of the trailer section; more is 431.
    pub trailers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            line: 8192,
            head: 65536,
            headers: 100,
            body: u64::MAX,
            extension: 8192,
            trailers: 8192,
        }
    }
}

/// How strictly a message is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Policy {
    /// RFC 9112 without its leave to repair: the default.
    #[default]
    Strict,
    /// With what is wrong and harms nobody, and RFC 9112 lets a server repair: folded lines become spaces
    /// (§5.2), a missing Host is let pass, and chunk extensions may hold any bytes but control bytes. Without a
    /// Host, which proxies send, Transfer-Encoding overrides Content-Length (§6.3).
    Tolerant,
    /// Also what upstream's own tests want to be accepted: control bytes in chunk extensions, and upgrades that
    /// are asked for by `Connection: upgrade` alone, or by `Upgrade: websocket` alone.
    Compatible,
    /// All that upstream's handlers accept: also that Transfer-Encoding always overrides Content-Length, by
    /// which a request can be smuggled past a proxy in front that does not know it.
    Upstream,
}

impl Policy {
    /// Whether a message with both Transfer-Encoding and Content-Length is read, by the former.
    pub fn takes_two_lengths(self, has_host: bool) -> bool {
        match self {
            Policy::Strict => false,
            Policy::Tolerant | Policy::Compatible => !has_host,
            Policy::Upstream => true,
        }
    }
}
