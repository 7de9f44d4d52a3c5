//! Two queries over the same river's points, laid out in many ways: docs/decisions/0027.
//!
//!     queries make FOLDER [--stations 10] [--sensors 10] [--days 60]
//!     queries ask FOLDER [--threads 2] [--rounds 3] [--only WORD]
//!
//! `make` writes the points once a layout, and once as plain Parquet for other programs
//! (`benches/layout/queries.py`). `ask` opens each layout and asks for three sensors' day, and for the hourly mean of thirty sensors over 45
//! days. Both answers have to be the same for all layouts. A line a layout goes to stdout: its name, bytes a
//! reading, and of both queries milliseconds (the best round's mean) and processor milliseconds.

mod ask;
mod layouts;
#[allow(dead_code, unreachable_pub, reason = "the generator has other families too; it is a crate's own elsewhere")]
#[path = "../../../benches/layout/src/readings.rs"]
mod readings;
mod write;

use std::path::PathBuf;

/// What went wrong, for whoever ran it.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The points: stations, sensors of each, days, from one seed.
#[derive(Debug, Clone, Copy)]
struct Size {
    stations: usize,
    sensors: usize,
    days: f64,
}

impl Size {
    /// What a folder's points are: kept beside them.
    fn read(folder: &std::path::Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(folder.join("size"))?;
        let mut numbers = text.split_whitespace();
        let mut next = || numbers.next().ok_or("the file `size` has three numbers");
        Ok(Self { stations: next()?.parse()?, sensors: next()?.parse()?, days: next()?.parse()? })
    }

    fn keep(self, folder: &std::path::Path) -> Result<(), Failure> {
        Ok(std::fs::write(folder.join("size"), format!("{} {} {}\n", self.stations, self.sensors, self.days))?)
    }

    /// The ids of the first so many sensors.
    fn names(self, count: usize) -> Vec<String> {
        let all = (0..self.stations).flat_map(|station| (0..self.sensors).map(move |sensor| (station, sensor)));
        all.take(count).map(|(station, sensor)| readings::name(station, sensor)).collect()
    }
}

fn main() -> Result<(), Failure> {
    const USAGE: &str = "usage: queries make|ask FOLDER [flags]; hint: the head of this file says which";
    let mut words = std::env::args().skip(1);
    let (Some(verb), Some(folder)) = (words.next(), words.next()) else { return Err(USAGE.into()) };
    let folder = std::path::absolute(PathBuf::from(folder))?;
    let mut size = Size { stations: 10, sensors: 10, days: 60.0 };
    let (mut threads, mut rounds, mut only) = (2, 3, String::new());
    while let Some(flag) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        match flag.as_str() {
            "--stations" => size.stations = value.parse()?,
            "--sensors" => size.sensors = value.parse()?,
            "--days" => size.days = value.parse()?,
            "--threads" => threads = value.parse()?,
            "--rounds" => rounds = value.parse()?,
            "--only" => only = value,
            _ => return Err(USAGE.into()),
        }
    }
    if size.sensors < 3 {
        return Err("the first query asks for three sensors of one station; hint: --sensors 3 or more".into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    // On a thread of the runtime, so that there are so many threads and not one more.
    runtime.block_on(async move {
        let work = tokio::spawn(async move {
            match verb.as_str() {
                "make" => write::make(&folder, size).await,
                "ask" => ask::ask(&folder, Size::read(&folder)?, threads, rounds, &only).await,
                _ => Err(USAGE.into()),
            }
        });
        work.await?
    })
}
