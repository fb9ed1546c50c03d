//! The epoll backend of the hub.
