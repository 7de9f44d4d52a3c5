//! What was learned about a bus's devices, on disk: `<spool dir>/learned/<bus>.toml`, and beside it, for a bus of text
//! lines, `<bus>.times.toml` (see `lines::stored_times`).
//!
//! It saves the requests that found it out, and tells `plan` how long a device takes to answer. It is no reading: a
//! file that is missing, damaged or of a later version is started without, and said so. A file is written beside
//! the old one, synced, and renamed over it, on a thread where nobody waits; of several versions that wait for that
//! only the newest is written. What was learned about a device is forgotten when its points change, which their
//! fingerprint shows, and after 30 days.
//!
//! Times belong to sensors and not to buses: a bus also knows what is in the files of others about a sensor that it has.
//!
//! It lies in the spool's folder, which has to exist anyway and is not made here, and is none of the spool's files: recovery does not
//! look at it. The spool's module that touches files touches these too.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;
use tracing::warn;

use super::plan::Barrier;
use super::refusal::{CountLimit, Found, Learned};
use crate::config::ModbusDevice;
use crate::modbus::transport::Table;
use crate::spool::{Disk, Folder, replace};

const VERSION: u32 = 1;

/// What is remembered of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeviceMemory {
    /// What its points were when this was learned.
    pub(crate) fingerprint: String,
    pub(crate) turnaround: Option<Duration>,
    pub(crate) learned: Learned,
}

/// What is remembered of a bus, by unit id.
pub(crate) type BusMemory = HashMap<u8, DeviceMemory>;

#[derive(Debug, Serialize, Deserialize)]
struct MemoryFile {
    version: u32,
    #[serde(default)]
    device: Vec<DeviceFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct DeviceFile {
    unit_id: u8,
    points: String,
    turnaround_us: Option<u64>,
    #[serde(default)]
    hole: Vec<PlaceFile>,
    #[serde(default)]
    refused: Vec<PlaceFile>,
    #[serde(default)]
    count: Vec<CountFile>,
}

/// Addresses from `first` to before `end`.
#[derive(Debug, Serialize, Deserialize)]
struct PlaceFile {
    table: String,
    first: u32,
    end: u32,
    found_us: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct CountFile {
    table: String,
    good: u16,
    refused: u16,
    found_us: i64,
}

/// A device's points as sixteen hexadecimal digits: what they are called or when they are read does not matter.
pub(crate) fn fingerprint(device: &ModbusDevice) -> String {
    let mut places: Vec<_> =
        device.points.iter().map(|point| (point.table, point.address, point.kind.width())).collect();
    places.sort_unstable();
    places.dedup();
    let mut hash = Sha256::new();
    for (table, address, width) in places {
        hash.update(format!("{} {address} {width}\n", word(table)));
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn word(table: Table) -> &'static str {
    Table::ALL.iter().find(|(_, known)| *known == table).map_or("", |(word, _)| word)
}

fn table(word: &str) -> Option<Table> {
    Table::ALL.iter().find(|(known, _)| *known == word).map(|(_, table)| *table)
}

/// What ends the name of a bus's file: of what its devices are like, and of which of their own times they told. No bus
/// is called so that one is the other: a dot in its name is no plain letter.
const DEVICES: &str = ".toml";
const TIMES: &str = ".times.toml";

/// File systems take names of 255 bytes, and an ending comes behind this.
const NAME_MAX: usize = 200;

/// So much of a longer name is kept for who looks into the folder.
const NAME_BEGIN: usize = 100;

/// A bus's file. A name may hold anything that can be printed: what is no plain letter, digit, `_` or `-` is
/// written as `%` and its bytes in hexadecimal. Of one that is too long for that the file has the beginning, and behind `~`, which no
/// other file's name holds, the name's SHA-256.
fn path(folder: &Path, bus: &str, end: &str) -> PathBuf {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
        other => format!("%{other:02x}"),
    };
    let mut name: String = bus.bytes().map(encode).collect();
    if name.len() > NAME_MAX {
        name.truncate(NAME_BEGIN);
        let hash: String = Sha256::digest(bus).iter().map(|byte| format!("{byte:02x}")).collect();
        name = format!("{name}~{hash}");
    }
    folder.join(name + end)
}

/// What is remembered of a bus. Blocks while it reads.
pub(crate) fn load(folder: &Path, bus: &str, now_us: i64) -> BusMemory {
    let (disk, folder) = place_of(folder);
    load_as(&disk, (&folder, bus, DEVICES), |text| decode(text, now_us))
}

/// What the folder of these files lies in, the spool's folder, and its path there.
fn place_of(folder: &Path) -> (Folder, PathBuf) {
    let above = folder.parent().unwrap_or(Path::new(""));
    (Folder::shared(above), folder.file_name().map_or_else(PathBuf::new, PathBuf::from))
}

/// What a bus's file says, if there is one. Blocks while it reads.
fn load_as<T: Default>(
    disk: &dyn Disk,
    (folder, bus, end): (&Path, &str, &str),
    decode: impl FnOnce(&str) -> Result<T, String>,
) -> T {
    let path = path(folder, bus, end);
    let read = disk.read(&path).and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
    let text = match read {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return T::default(),
        Err(error) => {
            warn!(bus, path = %path.display(), "cannot read what was learned about the bus, starting without: {error}");
            return T::default();
        }
    };
    decode(&text).unwrap_or_else(|reason| {
        warn!(bus, path = %path.display(), "what was learned about the bus cannot be understood, starting without: {reason}");
        T::default()
    })
}

/// What the files of other buses say that end so. Blocks while it reads. What cannot be read or understood is told by its own bus.
fn load_others<T>(
    disk: &dyn Disk,
    (folder, bus, end): (&Path, &str, &str),
    decode: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let own = path(folder, bus, end);
    let entries = disk.list(folder).unwrap_or_default();
    let mut files: Vec<PathBuf> = entries.iter().map(|entry| folder.join(&entry.name)).collect();
    files.retain(|file| *file != own && file.to_string_lossy().ends_with(end));
    files.sort();
    files.iter().filter_map(|file| decode(&String::from_utf8(disk.read(file).ok()?).ok()?).ok()).collect()
}

fn decode(text: &str, now_us: i64) -> Result<BusMemory, String> {
    let file: MemoryFile = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    if file.version != VERSION {
        return Err(format!("its version is {}", file.version));
    }
    file.device.into_iter().map(|device| Ok((device.unit_id, device.memory(now_us)?))).collect()
}

impl DeviceFile {
    fn memory(self, now_us: i64) -> Result<DeviceMemory, String> {
        // The clock was wrong then, or is now: what seems to come from later is as if it were of now.
        let found_us = |found_us: i64| found_us.min(now_us);
        let known = |word: &str| table(word).ok_or_else(|| format!("`{word}` is no table"));
        let place = |file: PlaceFile| {
            let place = Barrier { table: known(&file.table)?, first: file.first, end: file.end };
            if place.first > place.end || place.end > 65_536 {
                return Err(format!("addresses {} to {}", place.first, place.end));
            }
            Ok(Found { place, found_us: found_us(file.found_us) })
        };
        let count = |file: CountFile| {
            if file.good == 0 || file.good >= file.refused {
                return Err(format!("{} answered, {} refused", file.good, file.refused));
            }
            let table = known(&file.table)?;
            Ok(CountLimit { table, good: file.good, refused: file.refused, found_us: found_us(file.found_us) })
        };
        let mut learned = Learned {
            holes: self.hole.into_iter().map(place).collect::<Result<_, _>>()?,
            points: self.refused.into_iter().map(place).collect::<Result<_, _>>()?,
            counts: self.count.into_iter().map(count).collect::<Result<_, _>>()?,
        };
        learned.expire(now_us);
        let turnaround = self.turnaround_us.map(Duration::from_micros);
        Ok(DeviceMemory { fingerprint: self.points, turnaround, learned })
    }
}

fn encode(memory: &BusMemory) -> String {
    let place = |found: &Found| PlaceFile {
        table: word(found.place.table).to_owned(),
        first: found.place.first,
        end: found.place.end,
        found_us: found.found_us,
    };
    let count = |limit: &CountLimit| CountFile {
        table: word(limit.table).to_owned(),
        good: limit.good,
        refused: limit.refused,
        found_us: limit.found_us,
    };
    let device = |(unit_id, memory): (&u8, &DeviceMemory)| DeviceFile {
        unit_id: *unit_id,
        points: memory.fingerprint.clone(),
        turnaround_us: memory.turnaround.and_then(|turnaround| u64::try_from(turnaround.as_micros()).ok()),
        hole: memory.learned.holes.iter().map(place).collect(),
        refused: memory.learned.points.iter().map(place).collect(),
        count: memory.learned.counts.iter().map(count).collect(),
    };
    let mut devices: Vec<DeviceFile> = memory.iter().map(device).collect();
    devices.sort_by_key(|device| device.unit_id);
    let text = toml::to_string(&MemoryFile { version: VERSION, device: devices });
    let head = "# Written by the gateway: what it found out about the devices of this bus. May be removed.\n";
    head.to_owned() + &text.unwrap_or_default()
}

/// Writes a file in place of an older one; either is there after a power cut.
fn store(disk: &dyn Disk, (folder, bus, end): (&Path, &str, &str), text: &str) -> io::Result<()> {
    // The spool's folder is the spool's to make: another one in its place would hide that it is gone.
    disk.create_folder(folder)?;
    replace(disk, &path(folder, bus, end), text.as_bytes())
}

/// Keeps a bus's file up to date while the bus goes on.
#[derive(Debug)]
pub(crate) struct Keeper {
    folder: Option<PathBuf>,
    bus: String,
    end: &'static str,
    writing: Option<JoinHandle<io::Result<()>>>,
    /// The newest version, which waits for the one that is being written.
    next: Option<String>,
    /// A failure was told: a line, not a line each time.
    failed: bool,
}

impl Keeper {
    /// Of what a bus's devices are like.
    pub(crate) const fn of_devices(folder: Option<PathBuf>, bus: String) -> Self {
        Self { folder, bus, end: DEVICES, writing: None, next: None, failed: false }
    }

    /// Of which of their own times they told.
    pub(super) const fn of_times(folder: Option<PathBuf>, bus: String) -> Self {
        Self { folder, bus, end: TIMES, writing: None, next: None, failed: false }
    }

    /// What is remembered from before.
    pub(crate) async fn load(&self, now_us: i64) -> BusMemory {
        let Some(folder) = self.folder.clone() else { return BusMemory::new() };
        let bus = self.bus.clone();
        tokio::task::spawn_blocking(move || load(&folder, &bus, now_us)).await.unwrap_or_default()
    }

    /// The same of a file that somebody else understands.
    pub(super) async fn load_as<T: Default + Send + 'static>(
        &self,
        decode: impl FnOnce(&str) -> Result<T, String> + Send + 'static,
    ) -> T {
        let Some(folder) = self.folder.clone() else { return T::default() };
        let (bus, end) = (self.bus.clone(), self.end);
        let load = move || {
            let (disk, folder) = place_of(&folder);
            load_as(&disk, (&folder, &bus, end), decode)
        };
        tokio::task::spawn_blocking(load).await.unwrap_or_default()
    }

    /// The same of the files of all other buses, whatever those are called now, and whether there are such still.
    pub(super) async fn load_others<T: Send + 'static>(
        &self,
        decode: impl Fn(&str) -> Result<T, String> + Send + 'static,
    ) -> Vec<T> {
        let Some(folder) = self.folder.clone() else { return Vec::new() };
        let (bus, end) = (self.bus.clone(), self.end);
        let load = move || {
            let (disk, folder) = place_of(&folder);
            load_others(&disk, (&folder, &bus, end), decode)
        };
        tokio::task::spawn_blocking(load).await.unwrap_or_default()
    }

    /// Has a version written. Waits for nothing.
    pub(crate) async fn keep(&mut self, memory: &BusMemory) {
        self.keep_text(encode(memory)).await;
    }

    /// The same for a text of somebody else's.
    pub(super) async fn keep_text(&mut self, text: String) {
        self.next = Some(text);
        self.go_on().await;
    }

    /// Begins with the version that waits, once the one before is written. Waits for nothing.
    pub(crate) async fn go_on(&mut self) {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.finish().await;
        }
        let (None, Some(folder)) = (&self.writing, &self.folder) else { return };
        let Some(text) = self.next.take() else { return };
        let (folder, bus, end) = (folder.clone(), self.bus.clone(), self.end);
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let (disk, folder) = place_of(&folder);
            store(&disk, (&folder, &bus, end), &text)
        }));
    }

    /// Waits until everything is written.
    pub(crate) async fn end(&mut self) {
        while self.writing.is_some() {
            self.finish().await;
            self.go_on().await;
        }
    }

    async fn finish(&mut self) {
        let Some(writing) = self.writing.take() else { return };
        let error = match writing.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let (Some(error), false) = (&error, self.failed) {
            warn!(
                bus = self.bus,
                "what is learned about the bus cannot be written, and is learned anew after a restart: {error}"
            );
        }
        self.failed = error.is_some();
    }
}

#[cfg(test)]
mod crashes;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::bus::refusal::FORGET_US;

    const NOW_US: i64 = 1_700_000_000_000_000;

    fn memory() -> BusMemory {
        let place = |table, first, end| Found { place: Barrier { table, first, end }, found_us: NOW_US };
        let learned = Learned {
            holes: vec![place(Table::Input, 4, 6), place(Table::Coil, 9, 9)],
            points: vec![place(Table::Holding, 100, 102)],
            counts: vec![CountLimit { table: Table::Input, good: 25, refused: 50, found_us: NOW_US }],
        };
        let turnaround = Some(Duration::from_micros(8_125));
        BusMemory::from([(3, DeviceMemory { fingerprint: "00ff".into(), turnaround, learned })])
    }

    #[tokio::test]
    async fn what_was_learned_survives_a_restart_and_is_forgotten_in_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let learned = folder.path().join("learned");
        let name = "../pump house/Ø";
        let mut keeper = Keeper::of_devices(Some(learned.clone()), name.into());
        keeper.keep(&BusMemory::new()).await;
        keeper.keep(&memory()).await;
        keeper.end().await;
        assert_eq!(load(&learned, name, NOW_US), memory());
        let files: Vec<_> =
            fs::read_dir(&learned).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(files, ["%2e%2e%2fpump%20house%2f%c3%98.toml"], "it stays in its folder");
        let later = load(&learned, name, NOW_US + FORGET_US).remove(&3).expect("the device");
        assert_eq!((later.learned, later.turnaround), (Learned::default(), Some(Duration::from_micros(8_125))));
    }

    /// 60 letters that are not ASCII made a name of 360 bytes: nothing was ever remembered of such a bus.
    #[tokio::test]
    async fn a_long_name_of_a_bus_makes_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let learned = folder.path().join("learned");
        let name = |last: char| "Ø".repeat(59) + &last.to_string();
        for last in ['a', 'b'] {
            let mut keeper = Keeper::of_times(Some(learned.clone()), name(last));
            keeper.keep_text(format!("{last}")).await;
            keeper.end().await;
            assert!(!keeper.failed);
        }
        let (disk, learned) = place_of(&learned);
        let text = |last| load_as(&disk, (&learned, &name(last), TIMES), |text| Ok(text.to_owned()));
        assert_eq!((text('a'), text('b')), ("a".to_owned(), "b".to_owned()), "each has its own");
    }

    /// It made the spool's folder anew under a mount point whose disk was away, and what lay on the disk was given up.
    #[tokio::test]
    async fn nothing_is_made_where_the_spools_folder_is_gone() {
        let place = tempfile::tempdir().expect("a folder");
        let spool = place.path().join("spool");
        let mut keeper = Keeper::of_devices(Some(spool.join("learned")), "bus".into());
        keeper.keep(&memory()).await;
        keeper.end().await;
        assert!(keeper.failed && !spool.exists());
        fs::create_dir(&spool).expect("mounted");
        keeper.keep(&memory()).await;
        keeper.end().await;
        assert_eq!(load(&spool.join("learned"), "bus", NOW_US), memory());
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_started_without() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(load(folder.path(), "bus", NOW_US), BusMemory::new());
        let whole = encode(&memory());
        for text in [
            "\u{0}\u{0}".to_owned(),
            whole.replace("version = 1", "version = 2"),
            whole.replace("\"coil\"", "\"valve\""),
            whole.replace("end = 6", "end = 3"),
            whole.replace("refused = 50", "refused = 20"),
            whole[..whole.len() / 2].to_owned() + "\n[[",
        ] {
            fs::write(path(folder.path(), "bus", DEVICES), &text).expect("written");
            assert_eq!(load(folder.path(), "bus", NOW_US), BusMemory::new(), "{text}");
        }
    }
}
