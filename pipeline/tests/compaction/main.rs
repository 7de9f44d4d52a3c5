//! What writes whole tables anew: compaction and quality control within their memory, compaction beside everybody else.

mod concurrency;
mod memory;
mod place;
mod quality;
