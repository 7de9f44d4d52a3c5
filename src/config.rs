//! The whole of `tjern.toml`: each room's section, and what they share.
//!
//! Paths in it are relative to its folder.

use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_spanned::Spanned;
use tjern_gateway::config::Config as GatewayConfig;
use tjern_lake::Lake;
use tjern_pipeline::config::{
    CompactSection, EraseSection, IngestSection, JobsSection, Keep, PersonalSection, PublishSection, QualitySection,
    RegisterSection, Retention, RetentionSection, RollupSection, VacuumSection, default_publications,
};
use tjern_pipeline::ingest::IngestSettings;
use tjern_pipeline::jobs::{JobSettings, Schedules, entries, personal_entries};
use tjern_pipeline::watch::WatchSection;
use tjern_queries::{ServeConfig, Tokens};
use tjern_readings::configuration::{ConfigError, ConfigText, Period, Problem};
use tjern_readings::store::{Access, LakeUrl, Store, StoreError};

use crate::failure::Failure;

/// The version of the configuration's shape.
const VERSION: i64 = 1;

/// The city's time zone where none is named.
pub(crate) const TIMEZONE: &str = "Europe/Oslo";

/// How often the register's files are looked at.
const REGISTER_EVERY: Period = Period::from_seconds(60);

/// How often it is looked whether a log needs a checkpoint.
const CHECKPOINT_EVERY: Period = Period::from_seconds(6 * 60 * 60);

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<i64>,
    lake: LakeUrl,
    #[serde(default)]
    personal_lake: Option<Spanned<LakeUrl>>,
    #[serde(default)]
    personal: PersonalSection,
    #[serde(default)]
    timezone: Option<Spanned<String>>,
    #[serde(default)]
    simulated: bool,
    #[serde(default)]
    register: RegisterSection,
    #[serde(default)]
    ingest: IngestSection,
    #[serde(default)]
    compact: CompactSection,
    #[serde(default)]
    quality: QualitySection,
    #[serde(default)]
    rollup: RollupSection,
    #[serde(default)]
    erase: EraseSection,
    #[serde(default)]
    vacuum: VacuumSection,
    #[serde(default)]
    retention: RetentionSection,
    #[serde(default)]
    publish: Option<Vec<PublishSection>>,
    #[serde(default)]
    jobs: JobsSection,
    #[serde(default)]
    watch: WatchSection,
    #[serde(default)]
    serve: ServeConfig,
    #[serde(default)]
    gateway: Vec<GatewaySection>,
}

/// A `[[gateway]]` that `up` runs itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewaySection {
    config: Spanned<PathBuf>,
}

/// A city's configuration, held against what is allowed.
#[derive(Debug)]
pub(crate) struct City {
    pub(crate) lake: LakeUrl,
    pub(crate) timezone: TimeZone,
    /// Whether the pages say that the values are simulated.
    pub(crate) simulated: bool,
    pub(crate) serve: ServeConfig,
    pub(crate) tokens: Tokens,
    pub(crate) jobs: JobSettings,
    /// The gateways that `up` runs itself.
    pub(crate) gateways: Vec<GatewayConfig>,
    /// The lake of personal readings, where there is one.
    pub(crate) personal: Option<PersonalLake>,
}

/// How a store is opened: it creates what is missing, or it does not.
pub(crate) type OpenStore = fn(&LakeUrl, &Access) -> Result<Store, StoreError>;

/// A lake of personal readings: a root, credentials and times of its own.
#[derive(Debug)]
pub(crate) struct PersonalLake {
    pub(crate) lake: LakeUrl,
    pub(crate) access: Access,
    pub(crate) jobs: JobSettings,
}

impl PersonalLake {
    fn of(file: &File, folder: &Path, jobs: &JobSettings) -> Result<Option<Self>, Failure> {
        let Some(lake) = file.personal_lake.as_ref().map(|lake| lake.get_ref().clone()) else { return Ok(None) };
        let PersonalSection { credentials_file, landing_grace, readings, vacuum_retention } = &file.personal;
        let access = match credentials_file {
            Some(path) => Access::from_file(&folder.join(path), &lake).map_err(Failure::wrong)?,
            // A folder needs none, and a cloud was refused.
            None => Access::default(),
        };
        let mut jobs = JobSettings { publish: Vec::new(), keep: readings.map(Keep::duration), ..jobs.clone() };
        jobs.ingest.landing_grace = landing_grace.map_or(jobs.ingest.landing_grace, |span| span.0);
        jobs.retention = vacuum_retention.map_or(jobs.retention, Retention::duration);
        jobs.watch.lake = lake.clone();
        Ok(Some(Self { lake, access, jobs }))
    }

    /// Opens it.
    pub(crate) fn open(&self) -> Result<Lake, Failure> {
        self.open_by(Store::open_with)
    }

    /// Opens it in this way.
    pub(crate) fn open_by(&self, open: OpenStore) -> Result<Lake, Failure> {
        Ok(Lake::over(open(&self.lake, &self.access).map_err(Failure::failed)?).of_persons())
    }
}

impl City {
    /// Reads a configuration, the tokens and the gateways' configurations that it names.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let text = ConfigText::read(path).map_err(Failure::wrong)?;
        let file: File = text.parse().map_err(Failure::wrong)?;
        let problems = check(&text, &file);
        if !problems.is_empty() {
            return Err(Failure::wrong(ConfigError::Wrong(problems)));
        }
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
        let timezone = timezone_of(&file).map_err(Failure::wrong)?;
        let tokens = match &file.serve.tokens {
            Some(tokens) => Tokens::read(&folder.join(tokens)).map_err(Failure::wrong)?,
            None => Tokens::none(),
        };
        let gateways = gateways(&text, &file, &folder)?;
        let jobs = JobSettings {
            ingest: IngestSettings {
                hole_patience: file.ingest.hole_patience.0,
                landing_grace: file.ingest.landing_grace.0,
            },
            compact: file.compact.settings(&folder),
            keep: file.retention.keep(),
            when: Schedules {
                ingest: file.ingest.every.into(),
                register: REGISTER_EVERY.into(),
                quality: file.quality.every.into(),
                rollup: file.rollup.every.into(),
                compact: file.compact.every.into(),
                erase: file.erase.every.into(),
                vacuum: file.vacuum.every.into(),
                watch: file.watch.every.into(),
                checkpoint: CHECKPOINT_EVERY.into(),
                retention: file.retention.every.into(),
            },
            cron: file.jobs.cron.iter().map(|(job, cron)| (job.clone(), cron.get_ref().clone())).collect(),
            off: file.jobs.off.iter().map(|job| job.get_ref().clone()).collect(),
            jitter: file.jobs.jitter.0,
            listen: file.jobs.listen,
            watch: file.watch.settings(&folder, &file.lake, &timezone).map_err(Failure::wrong)?,
            retention: file.vacuum.retention.duration(),
            register: file.register.files(&folder, &timezone),
            publish: file.publish.clone().unwrap_or_else(default_publications),
            timezone: timezone.clone(),
        };
        let personal = PersonalLake::of(&file, &folder, &jobs)?;
        let problems = check_jobs(&text, &file.jobs, &jobs, personal.as_ref());
        if !problems.is_empty() {
            return Err(Failure::wrong(ConfigError::Wrong(problems)));
        }
        let File { lake, simulated, serve, .. } = file;
        Ok(Self { lake, timezone, simulated, serve, tokens, jobs, gateways, personal })
    }
}

fn check(text: &ConfigText, file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    if *file.version.get_ref() != VERSION {
        let message = format!("version {} of the configuration is not known", file.version.get_ref());
        problems.push(text.problem(file.version.span(), message, Some(format!("write `version = {VERSION}`"))));
    }
    if let Some(name) = file.timezone.as_ref().filter(|name| TimeZone::get(name.get_ref()).is_err()) {
        let message = format!("`{}` is no time zone", name.get_ref());
        let hint = "write a name of the time zone data base, like \"Europe/Oslo\"".to_owned();
        problems.push(text.problem(name.span(), message, Some(hint)));
    }
    problems.extend(check_personal(text, file));
    problems
}

/// A lake of personal readings is nowhere near the other one, and is reached in another way.
fn check_personal(text: &ConfigText, file: &File) -> Option<Problem> {
    let Some(personal) = &file.personal_lake else {
        let is_said = file.personal != PersonalSection::default();
        let message = "`[personal]` is of no use without `personal_lake`".to_owned();
        let hint = "name the lake of personal readings with `personal_lake`, or leave the section out".to_owned();
        return is_said.then(|| text.problem(file.version.span(), message, Some(hint)));
    };
    let (message, hint) = if personal.get_ref().overlaps(&file.lake) {
        (
            "the lake of personal readings lies in the other one, or has it in it",
            "give it a bucket or a folder of its own",
        )
    } else if personal.get_ref().local_folder().is_none() && file.personal.credentials_file.is_none() {
        (
            "the lake of personal readings has no credentials of its own",
            "write them into a file and name it with `credentials_file` in `[personal]`: the environment's are the other lake's",
        )
    } else {
        return None;
    };
    Some(text.problem(personal.span(), message.to_owned(), Some(hint.to_owned())))
}

/// `[jobs]` names jobs that there are.
fn check_jobs(
    text: &ConfigText,
    section: &JobsSection,
    settings: &JobSettings,
    personal: Option<&PersonalLake>,
) -> Vec<Problem> {
    let others = personal.map(|personal| personal_entries(&personal.jobs)).into_iter().flatten();
    let known: Vec<String> = entries(settings).into_iter().chain(others).map(|entry| entry.name).collect();
    let off = section.off.iter().map(|job| (job.get_ref(), job.span()));
    let named = section.cron.iter().map(|(job, cron)| (job, cron.span())).chain(off);
    let unknown = named.filter(|(job, _)| !known.contains(job));
    let problem = |(job, span): (&String, std::ops::Range<usize>)| {
        let hint = format!("the jobs are {}", known.join(", "));
        text.problem(span, format!("there is no job `{job}`"), Some(hint))
    };
    unknown.map(problem).collect()
}

fn timezone_of(file: &File) -> Result<TimeZone, jiff::Error> {
    TimeZone::get(file.timezone.as_ref().map_or(TIMEZONE, |name| name.get_ref()))
}

fn gateways(text: &ConfigText, file: &File, folder: &Path) -> Result<Vec<GatewayConfig>, Failure> {
    let mut gateways: Vec<GatewayConfig> = Vec::new();
    for section in &file.gateway {
        let path = folder.join(section.config.get_ref());
        let gateway = match GatewayConfig::load(&path) {
            Err(ConfigError::Unreadable { path, source }) => {
                let message = format!("cannot read the gateway's configuration `{}`: {source}", path.display());
                let hint = "the path is relative to this file's folder".to_owned();
                let problem = text.problem(section.config.span(), message, Some(hint));
                return Err(Failure::wrong(ConfigError::Wrong(vec![problem])));
            }
            read => read.map_err(Failure::wrong)?,
        };
        let problem = |message: String, hint: &str| {
            let problem = text.problem(section.config.span(), message, Some(hint.to_owned()));
            Err(Failure::wrong(ConfigError::Wrong(vec![problem])))
        };
        let is_personal = file.personal_lake.as_ref().is_some_and(|lake| lake.get_ref() == gateway.lake());
        if gateway.lake() != &file.lake && !is_personal {
            return problem(
                format!("this gateway's lake is {}, the city's is {}", gateway.lake(), file.lake),
                "a gateway that `up` runs sends to the city's own lake, or to its `personal_lake`",
            );
        }
        if gateways.iter().any(|other| other.gateway() == gateway.gateway()) {
            return problem(format!("two gateways are named `{}`", gateway.gateway()), "give each a name of its own");
        }
        gateways.push(gateway);
    }
    Ok(gateways)
}
