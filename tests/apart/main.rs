//! What must stay apart, by the real binary: personal readings and the common lake, what is public no more and open data, the
//! backups of two lakes, what was erased and a backup from before, a lake and what a link makes of it.

mod backups;
mod erased;
mod place;
mod public_no_more;
mod register_first;
mod retired;
