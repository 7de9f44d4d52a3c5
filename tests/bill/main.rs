//! What a day costs at a store that bills each request, and how soon what landed is in an answer: gateways, pipeline and the
//! server that answers queries, together.
//!
//! [`day`] has the bill, [`soon`] the time, [`apart`] what becomes of a server whose pipeline goes away and comes back. The
//! server is the real one, asked over HTTP: in the pipeline's process, as `tjern up` runs it, or in one of its own, which the
//! pipeline tells of its commits or which asks the store for them. Time is a clock of the test's own.

mod apart;
mod dashboard;
mod day;
mod jobs;
mod place;
mod soon;
