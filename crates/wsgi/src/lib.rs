//! HTTP/1.1 for the hub.
