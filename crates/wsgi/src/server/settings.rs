//! What a server is told: limits, times, batch sizes.

use crate::inbound::Rules;
use std::time::Duration;

/// Settings of a server. The defaults are those of `gevent.pywsgi`.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Limits and strictness of requests.
    pub rules: Rules,
    /// From the first byte of a head to its end.
    pub head_timeout: Option<Duration>,
    /// Before the first request and between two.
    pub idle_timeout: Option<Duration>,
    /// Between two pieces of a body, while somebody waits for it.
    pub body_timeout: Option<Duration>,
    /// Between two pieces of an answer that the client takes.
    pub write_timeout: Option<Duration>,
    /// Connections accepted before others have their turn.
    pub batch: usize,
    /// How long a client may go on sending what nobody reads, after its answer: the rest of a body, or anything at
    /// all before the connection closes.
    pub linger: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        let minute = Some(Duration::from_secs(60));
        Settings {
            rules: Rules::default(),
            head_timeout: minute,
            idle_timeout: Some(Duration::from_secs(75)),
            body_timeout: minute,
            write_timeout: minute,
            batch: 100,
            linger: Some(Duration::from_secs(30)),
        }
    }
}
