//! Useful, not only conformant: on a real lake.
