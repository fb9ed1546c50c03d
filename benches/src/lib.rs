//! Nothing but the benchmarks in `benches/`: `cargo bench -p gevent-benches`.
