//! What the tests of several rooms share, in no program: what every store must do ([`conformance`]), a store
//! that fails ([`faults`]), one in memory that dates, delays and dies as it is told ([`simulated`]), one that lists as fast as a cloud ([`indexed`]), and an S3 server in the test's own process that fails as servers and lines do ([`s3`]). Besides,
//! credentials that are canaries with the servers that give them away ([`canary`]), and ports at which nobody is ([`ports`]).
//!
//! What is random comes from a seed, and whoever finds a fault prints it.
#![forbid(unsafe_code)]

pub mod canary;
pub mod conformance;
pub mod faults;
pub mod indexed;
pub mod ports;
pub mod s3;
pub mod simulated;
