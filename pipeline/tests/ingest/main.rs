//! Ingest over a store that is slow, dies and loses replies; what it says of readings, and what it sets aside; what
//! becomes of all that when tables are lost: replay, backups.

mod backup;
mod causes;
mod claims;
mod corrections;
mod exactly_once;
mod first_lines;
mod held;
mod holes;
mod late_units;
mod looks;
mod personal;
mod quarantine;
mod replay;
mod replay_in_order;
mod soon;
mod strays;
mod support;
