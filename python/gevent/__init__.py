"""gevent: coroutine-based networking, on a hub written in Rust."""
