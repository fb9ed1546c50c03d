//! Synchronisation primitives for fibers.
