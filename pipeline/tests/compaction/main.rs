//! What goes over whole tables: compaction, quality control, validation, rollups and corrections within their memory,
//! compaction beside everybody else, vacuum beside readers.

mod concurrency;
mod correction;
mod memory;
mod place;
mod quality;
mod rollup;
mod threads;
mod vacuum;
mod validation;
