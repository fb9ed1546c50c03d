//! The io_uring backend of the hub.
