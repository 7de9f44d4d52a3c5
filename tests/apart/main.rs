//! What must stay apart, by the real binary: personal readings and the common lake, what is public no more and open data, the
//! backups of two lakes, a lake and what a link makes of it.

mod backups;
mod place;
mod public_no_more;
mod register_first;
mod retired;
