//! Ingest over a store that is slow, dies, loses replies, and is billed; what it says of readings, and what it sets aside.

mod bill;
mod causes;
mod exactly_once;
mod quarantine;
mod support;
