//! The watch: what is wrong with the city's data is told once, and told when it is over.
//!
//! It looks for conditions ([`look`]): a source that is silent, a sensor that is late, a hole, a job that fails, a disk or
//! a token that runs out, a value over a limit, readings that a source was not to write or whose unit differs
//! from the register's, objects that landed and belong to nobody. A condition that begins and one that ends are events ([`state`]); each way of telling
//! ([`webhook`], [`mail`]) has a queue of them in the lake, and an event leaves it when it was told. So an event is told
//! once on each way, across restarts and outages of the receiver. Only a process that is killed between telling and
//! writing that down tells again: the event has the same `id` then.
//!
//! **This is no safety alarm and no medical device.** It may come late or not at all: readings travel with
//! the gateway's batches, the watch looks every few minutes, and mail and webhooks have nobody who answers for
//! them. Nobody's safety may hang on it.

pub mod alert;
pub mod look;
pub mod mail;
pub mod secret;
pub mod settings;
pub mod state;
pub mod token;
pub mod webhook;

mod round;
mod tell;

pub(crate) use round::{JOB, LEASE};
pub use round::{WatchError, WatchOutcome, Watcher};
pub use settings::{WatchSection, WatchSettings};
