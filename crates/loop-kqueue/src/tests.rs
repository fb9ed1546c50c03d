//! What is particular to kqueue; what every loop has to do is tested by the conformance suite.
