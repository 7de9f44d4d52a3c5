//! Compaction of a whole table: within its memory, and beside everybody else.

mod concurrency;
mod memory;
mod place;
