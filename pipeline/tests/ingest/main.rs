//! Ingest over a store that is slow, dies and loses replies; what it says of readings, and what it sets aside.

mod causes;
mod corrections;
mod exactly_once;
mod held;
mod quarantine;
mod soon;
mod support;
