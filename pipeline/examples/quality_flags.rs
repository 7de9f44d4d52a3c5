//! The tests of quality control on a series of one's own, before its sensor is registered: which rules
//! would flag what?
//!
//!     quality_flags RULES.csv SENSOR UNIT KIND INTERVAL < SERIES.csv > FLAGS.csv
//!
//! `RULES.csv` is as `quality.csv` is; SENSOR an id; INTERVAL like `10min`, or `-`. The series has a line
//! `time,value` each, microseconds since 1970 UTC in order, the value may be empty; the flags have a line
//! `quality,tests`. How long the tests took, without reading and writing, is told on stderr: by the wall clock, and by
//! the processor, all threads together.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use tjern_pipeline::quality::{RawSeries, try_rules};
use tjern_pipeline::register::{Class, SensorRow, rules_of_text};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rules, sensor, unit, kind, interval] = arguments.as_slice() else {
        return Err("usage: quality_flags RULES.csv SENSOR UNIT KIND INTERVAL < SERIES.csv > FLAGS.csv".into());
    };
    let text = std::fs::read_to_string(rules)?;
    let problems = |problems: Vec<_>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let rules = rules_of_text(Path::new(rules), &text).map_err(problems)?;
    let sensor = SensorRow {
        id: sensor.parse()?,
        name_nb: None,
        name_nn: None,
        name_en: None,
        unit: unit.clone(),
        kind: kind.parse()?,
        class: Class::Internal,
        interval: (interval != "-").then(|| interval.clone()),
        low: None,
        high: None,
        sources: None,
        wraps_at: None,
    };
    let mut series = RawSeries::default();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (time_us, value) = line.split_once(',').ok_or("a line is `time,value`")?;
        series.time_us.push(time_us.parse()?);
        series.value.push(if value.is_empty() { None } else { Some(value.parse()?) });
    }
    let (began, before_s) = (Instant::now(), processor_s());
    let flags = try_rules(&sensor, rules, &series)?;
    let (seconds, processor_s) = (began.elapsed().as_secs_f64(), processor_s() - before_s);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for (quality, tests) in flags {
        writeln!(out, "{quality},{tests}")?;
    }
    out.flush()?;
    eprintln!("{} points in {seconds:.6} s, {processor_s:.6} s of the processor", series.time_us.len());
    Ok(())
}

/// The processor time of this process, all its threads.
fn processor_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "a process does not live so long")]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    seconds
}
