//! Sockets for fibers: blocking in style, parked on the hub underneath.
