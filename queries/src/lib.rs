//! The queries of Tjern: tables to SQL, named queries, residents' pages, open data.
//!
//! Data goes one way: a session of the lake, pinned at a version of each table ([`engine`]), answers
//! SQL ([`sql`], [`named`]) as rows, which become bytes ([`output`]) or a page ([`pages`]). Two
//! listeners ([`server`]): everybody's, behind which only public sensors exist, and the staff's.
//!
//! Nothing here writes to the lake, reads another file than the tokens', or asks anybody anything, but the pipeline of
//! another process for its commits, where that is configured ([`told`]).
//! What a request may cost is in [`limits`], and nothing is ever cut without saying so.
#![forbid(unsafe_code)]

mod damaged;
mod engine;
mod http;
mod kept;
pub mod latest;
pub mod limits;
mod looks;
pub mod named;
pub mod output;
mod pages;
pub mod parameters;
mod rows;
mod server;
mod settings;
pub mod sql;
mod tokens;
mod told;
mod workshop;

pub use output::Format;
pub use server::{ServeError, Server};
pub use settings::{ServeConfig, ServerSettings, SharedRegistry, StatusHook};
pub use sql::{Answer, SqlError, run_sql, stream_sql};
pub use tokens::{Tokens, TokensError};
pub use told::address::PipelineAddress;
