//! The whole of `tjern.toml`: each room's section, and what they share.
//!
//! Paths in it are relative to its folder.

use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_spanned::Spanned;
use tjern_gateway::config::Config as GatewayConfig;
use tjern_pipeline::config::{
    CompactSection, EraseSection, IngestSection, JobsSection, PublishSection, QualitySection, RegisterSection,
    RetentionSection, RollupSection, VacuumSection, default_publications,
};
use tjern_pipeline::ingest::IngestSettings;
use tjern_pipeline::jobs::{JobSettings, Schedules, entries};
use tjern_pipeline::watch::WatchSection;
use tjern_queries::{ServeConfig, Tokens};
use tjern_readings::configuration::{ConfigError, ConfigText, Period, Problem};
use tjern_readings::store::LakeUrl;

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
        let problems = check_jobs(&text, &file.jobs, &jobs);
        if !problems.is_empty() {
            return Err(Failure::wrong(ConfigError::Wrong(problems)));
        }
        let File { lake, simulated, serve, .. } = file;
        Ok(Self { lake, timezone, simulated, serve, tokens, jobs, gateways })
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
    if let Some(personal) = &file.personal_lake {
        // Whoever sets it would believe that personal readings are kept apart.
        let message = "a lake of personal readings is not served yet".to_owned();
        let hint = "leave it out, and have no gateway read what is personal".to_owned();
        problems.push(text.problem(personal.span(), message, Some(hint)));
    }
    problems
}

/// `[jobs]` names jobs that there are.
fn check_jobs(text: &ConfigText, section: &JobsSection, settings: &JobSettings) -> Vec<Problem> {
    let known: Vec<String> = entries(settings).into_iter().map(|entry| entry.name).collect();
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
        if gateway.lake() != &file.lake {
            return problem(
                format!("this gateway's lake is {}, the city's is {}", gateway.lake(), file.lake),
                "a gateway that `up` runs sends to the city's own lake",
            );
        }
        if gateways.iter().any(|other| other.gateway() == gateway.gateway()) {
            return problem(format!("two gateways are named `{}`", gateway.gateway()), "give each a name of its own");
        }
        gateways.push(gateway);
    }
    Ok(gateways)
}
