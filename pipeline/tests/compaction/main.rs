//! What writes whole tables anew: compaction, quality control and validation within their memory, compaction beside everybody else.

mod concurrency;
mod memory;
mod place;
mod quality;
mod validation;
