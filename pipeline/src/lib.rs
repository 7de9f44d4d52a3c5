//! The pipeline of Tjern: landing zone, tables, rollups, open datasets.
//!
//! Each room is a job that works once, to the end, and can be stopped anywhere: [`ingest`] takes
//! landed batches, [`quality`] flags them, [`compact`] makes few files of many, [`rollup`] sums them
//! up, [`register`] says what the sensors are, [`publish`] makes open datasets, [`vacuum`] removes
//! what nobody needs any more, [`watch`] tells what is wrong, [`maintain`] writes checkpoints and removes what was kept long enough, [`status`] says how
//! the lake is and [`verify`] reads all of it. [`jobs`] runs them on
//! their schedules. What people do by hand: [`import`] history, [`correct`], [`validate`] and [`erase`] readings.
//! DataFusion moves data; Polars, behind [`frames`], does the mathematics.
#![deny(unsafe_code)]

#[cfg(test)]
mod altered;
mod anew;
pub mod backup;
pub mod bounds;
pub mod compact;
pub mod config;
pub mod correct;
pub mod erase;
pub mod frames;
pub mod import;
pub mod ingest;
pub mod jobs;
pub mod maintain;
pub mod publish;
pub mod quality;
pub mod quarantine;
pub mod register;
pub mod replay;
#[cfg(test)]
mod restricted;
pub mod rollup;
mod sheet;
pub mod status;
mod tables;
#[cfg(test)]
mod testing;
pub mod times;
pub mod vacuum;
pub mod validate;
pub mod verify;
pub mod watch;
