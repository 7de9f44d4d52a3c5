//! `tjern query`: one SQL query over a lake, its answer on stdout.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use futures::StreamExt;
use jiff::tz::TimeZone;
use tjern_lake::session::MEMORY_BYTES;
use tjern_lake::{Access, Lake, SessionSettings, session};
use tjern_pipeline::backup::restore::refuse_unfinished;
use tjern_queries::output::{Output, OutputError};
use tjern_queries::{Format, stream_sql};
use tjern_readings::store::LakeUrl;

use crate::cli::{PlaceArguments, QueryArguments};
use crate::config::{City, TIMEZONE};
use crate::failure::Failure;

/// Asks, and writes the answer as it comes.
pub(crate) async fn query(arguments: QueryArguments) -> Result<(), Failure> {
    let QueryArguments { sql, place, format } = arguments;
    if matches!(format, Format::Parquet | Format::Arrow) && io::stdout().is_terminal() {
        let hint = "hint: send it to a file with `>`";
        return Err(Failure::wrong(format!("{} is nothing to read on a terminal; {hint}", format.word())));
    }
    let (url, timezone) = lake_of(&place)?;
    let lake = Lake::open(&url).map_err(Failure::failed)?;
    refuse_unfinished(&lake).await.map_err(Failure::failed)?;
    let settings = SessionSettings { access: Access::Staff, timezone, memory_bytes: MEMORY_BYTES };
    let context = session(&lake, &settings).await.map_err(Failure::failed)?;
    let mut rows = stream_sql(&context, &sql).await.map_err(Failure::failed)?;
    let stdout = BufWriter::new(io::stdout());
    let mut output = Output::new(format, &rows.schema(), stdout).map_err(Failure::failed)?;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(Failure::failed)?;
        if let Err(error) = output.write(&batch) {
            return told(error);
        }
    }
    match output.finish() {
        Ok(mut stdout) => {
            stdout.flush().or_else(|error| if is_closed(&error) { Ok(()) } else { Err(Failure::failed(error)) })
        }
        Err(error) => told(error),
    }
}

/// Whoever read our output may have seen enough (`| head`): that is no failure.
fn told(error: OutputError) -> Result<(), Failure> {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(is_closed) || error.to_string().contains("Broken pipe") {
            return Ok(());
        }
        cause = error.source();
    }
    Err(Failure::failed(error))
}

fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

fn lake_of(place: &PlaceArguments) -> Result<(LakeUrl, TimeZone), Failure> {
    if let Some(config) = &place.config {
        let city = City::load(config)?;
        return Ok((city.lake, city.timezone));
    }
    let data = place.data.as_deref().unwrap_or(Path::new("tjern-data"));
    let folder = data.join("lake");
    let found = folder.canonicalize().map_err(|error| {
        let hint = "hint: name the folder that was given to `tjern up --data`";
        Failure::wrong(format!("there is no lake in `{}`: {error}; {hint}", data.display()))
    })?;
    let timezone = TimeZone::get(TIMEZONE).map_err(Failure::failed)?;
    Ok((LakeUrl::folder(&found).map_err(Failure::wrong)?, timezone))
}
