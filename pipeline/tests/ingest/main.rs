//! Ingest over a store that is slow, dies, loses replies, and is billed; what it says of readings, and what it sets aside; what
//! becomes of all that when tables are lost: replay, backups.

mod backup;
mod bill;
mod causes;
mod exactly_once;
mod personal;
mod quarantine;
mod replay;
mod support;
