//! How a cloud is reached: variables by the names that `object_store` gives them, from the environment and
//! from whoever opens the store, whose own stand over the environment's.
//!
//! What is secret in them is never shown: not by `Debug`, and not by the errors of a store that was opened with them
//! (`discreet`).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::{Host, Url};

use super::credentials::text_of;
use super::secret::Secrets;
use super::{LakeUrl, knows, secret};

/// Variables that are meant for a cloud begin with one of these, in small letters.
pub const PREFIXES: [&str; 3] = ["aws_", "azure_", "google_"];

/// Names with one of these in them have values that nobody may see.
const SECRET_NAMES: [&str; 7] = ["key", "secret", "token", "sas", "password", "credential", "service_account"];

/// Names with one of these in them have values that stand in a request's head as they are.
const SENT_NAMES: [&str; 4] = ["access_key_id", "token", "account_name", "region"];

/// Names that end so have a URL.
const ENDPOINTS: [&str; 4] = ["endpoint", "endpoint_url", "endpoint_url_s3", "endpoint_url_sts"];

/// Variables with the address of the store itself. The first line stands over the second, whichever was set later; others lend
/// credentials.
const STORE_ENDPOINTS: [&[&str]; 2] = [
    &["aws_endpoint_url_s3"],
    &["aws_endpoint", "aws_endpoint_url", "azure_storage_endpoint", "azure_endpoint", "google_base_url"],
];

/// A longer value is no path, whatever it begins with.
const PATH_MAX: usize = 1_024;

/// Where Google's own tools leave what they know of somebody, below his home: `object_store` looks there.
const GOOGLE_DEFAULT: &str = ".config/gcloud/application_default_credentials.json";

/// What stands in the place of a secret.
pub const REDACTED: &str = "***";

/// What is needed to reach a cloud, besides its URL.
#[derive(Clone, Default)]
pub struct Access {
    /// Names in small letters; a later one stands over an earlier one.
    variables: Vec<(String, String)>,
    /// How long a request may take, where that is not the client's own 30 s.
    timeout: Option<Duration>,
    /// A request that fails is not repeated by the client: whoever asked does that.
    asks_once: bool,
}

impl Access {
    /// What the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::default().with_variables(variables)
    }

    /// The same with variables that stand over those it has. Only those of clouds are taken.
    #[must_use]
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
        self.variables.extend(variables.filter(|(name, _)| PREFIXES.iter().any(|known| name.starts_with(known))));
        self
    }

    /// The same with requests that may take so long.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long a request may take.
    #[must_use]
    pub const fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The same with requests that the client does not repeat: for whoever keeps to a rate, and has to know of each.
    #[must_use]
    pub const fn asking_once(mut self, asks_once: bool) -> Self {
        self.asks_once = asks_once;
        self
    }

    /// Whether the client repeats no request.
    #[must_use]
    pub const fn asks_once(&self) -> bool {
        self.asks_once
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.variables.iter().cloned()
    }

    /// The host that is asked for this lake without TLS, where that is another machine: whoever is on the way could answer in
    /// its place.
    #[must_use]
    pub fn plain_host(&self, lake: &LakeUrl) -> Option<String> {
        if lake.local_folder().is_some() {
            return None;
        }
        let named = |names: &&[&str]| {
            let mut latest = self.variables.iter().rev();
            latest.find(|(name, _)| names.contains(&name.as_str()) && knows(lake, name))
        };
        let (_, value) = STORE_ENDPOINTS.iter().find_map(named)?;
        let url = Url::parse(value).ok().filter(|url| url.scheme() == "http")?;
        let is_here = match url.host()? {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        if is_here { None } else { url.host_str().map(str::to_owned) }
    }

    /// What is missing to reach this lake, and where it goes, if anything obviously is: a cloud's own
    /// machines are let in without any of it.
    #[must_use]
    pub fn missing(&self, lake: &LakeUrl) -> Option<&'static str> {
        let has = |part: &str| self.variables.iter().any(|(name, value)| name.contains(part) && !value.is_empty());
        let scheme = lake.url().scheme();
        let let_in = match scheme {
            "s3" => ["access_key_id", "web_identity", "container_credentials", "skip_signature"].as_slice(),
            "az" => &["_key", "sas", "client_", "token", "identity", "use_azure_cli", "skip_signature", "emulator"],
            "gs" => &["service_account", "application_credentials", "skip_signature"],
            _ => return None,
        };
        if let_in.iter().any(|part| has(part)) {
            return None;
        }
        Some(match scheme {
            "s3" => {
                "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT for a store of your own) in the environment; a gateway may have them in the file of `[upload] credentials_file`"
            }
            "az" => {
                "there are no credentials: set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY in the environment; a gateway may have them in the file of `[upload] credentials_file`"
            }
            _ => {
                "there are no credentials: set GOOGLE_SERVICE_ACCOUNT (a file) in the environment; a gateway may have it in the file of `[upload] credentials_file`"
            }
        })
    }

    /// The variable of this lake whose value goes into a request as it is, and cannot: `object_store` panics where it tries.
    pub(super) fn unsendable(&self, lake: &LakeUrl) -> Option<&str> {
        let is_sent = |name: &str| SENT_NAMES.iter().any(|part| name.contains(part)) && !names_a_file(name);
        let cannot = |value: &str| value.bytes().any(|byte| !(b' '..=b'~').contains(&byte));
        let found = self.variables.iter().find(|(name, value)| is_sent(name) && cannot(value) && knows(lake, name));
        found.map(|(name, _)| name.as_str())
    }

    /// The variable of this lake that is to have the store's address and has none, its value and what is wrong with it:
    /// `object_store` panics where it asks there.
    pub(super) fn wrong_endpoint(&self, lake: &LakeUrl) -> Option<(&str, &str, String)> {
        let is_endpoint = |name: &str| ENDPOINTS.iter().any(|end| name.ends_with(end)) && !name.contains("fabric");
        let endpoints =
            self.variables.iter().filter(|(name, value)| is_endpoint(name) && !value.is_empty() && knows(lake, name));
        let mut wrong = endpoints.filter_map(|(name, value)| {
            let what = match Url::parse(value) {
                Err(error) => error.to_string(),
                Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                    "it begins with neither https:// nor http://".into()
                }
                Ok(_) => return None,
            };
            Some((name.as_str(), value.as_str(), what))
        });
        wrong.next()
    }

    /// What no text may show: the secrets of these variables, also as a URL has them, and what the files say that this
    /// lake's variables name. It reads them: work that blocks. A pipe can be read once, and is left to who needs it.
    pub(super) fn secrets(&self, lake: &LakeUrl) -> Secrets {
        let is_googles = lake.url().scheme() == "gs";
        let home = std::env::var_os("HOME").filter(|_| is_googles).map(|home| PathBuf::from(home).join(GOOGLE_DEFAULT));
        let named = self.variables.iter().filter(|(name, value)| is_path(value) && knows(lake, name));
        let files = named.map(|(_, value)| PathBuf::from(value)).chain(home).filter(|path| path.is_file());
        let texts = files.filter_map(|path| text_of(&path).ok());
        Secrets::of(self.secret_values().chain(texts.flat_map(|text| secret::forms(&text))))
    }

    fn secret_values(&self) -> impl Iterator<Item = String> + '_ {
        let is_secret = |name: &str, value: &str| {
            SECRET_NAMES.iter().any(|part| name.contains(part)) && !(names_a_file(name) && is_path(value))
        };
        let secret = self.variables.iter().filter(move |(name, value)| is_secret(name, value));
        secret.flat_map(|(_, value)| secret::forms(value))
    }
}

/// Whether a variable is meant to have a path: the file is what somebody has to look at.
fn names_a_file(name: &str) -> bool {
    let ends = ["_file", "_path", "google_service_account", "application_credentials"];
    ends.iter().any(|end| name.ends_with(end))
}

/// Whether a value is one: what belongs into the file is pasted in its place now and then.
fn is_path(value: &str) -> bool {
    value.len() <= PATH_MAX && value.starts_with(['/', '.']) && !value.contains(['{', '"', '\n'])
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.variables.iter().map(|(name, _)| name.as_str()).collect();
        formatter.debug_struct("Access").field("names", &names).field("timeout", &self.timeout).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(variables: &[(&str, &str)]) -> Access {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Access::default().with_variables(owned)
    }

    fn lake(text: &str) -> LakeUrl {
        text.parse().expect("a lake")
    }

    #[test]
    fn what_is_missing_is_named_with_its_place() {
        for (url, name) in [("s3://b", "AWS_SECRET_ACCESS_KEY"), ("az://c", "AZURE_STORAGE_ACCOUNT_KEY")] {
            let hint = access(&[("AWS_REGION", "x")]).missing(&lake(url)).expect("a hint");
            assert!(hint.contains(name) && hint.contains("credentials_file"), "{hint}");
        }
        assert_eq!(access(&[("AWS_ACCESS_KEY_ID", "x")]).missing(&lake("s3://b")), None);
        assert_eq!(access(&[]).missing(&lake("file:///var/lake")), None);
    }

    /// A page of a captive portal counts as a success there.
    #[test]
    fn who_is_asked_without_tls_is_known() {
        let host = |name: &str, value: &str| access(&[(name, value)]).plain_host(&lake("s3://b"));
        assert_eq!(
            host("AWS_ENDPOINT", "http://user:canary@minio.city.example:9000"),
            Some("minio.city.example".to_owned())
        );
        assert_eq!(host("AWS_ENDPOINT_URL", "http://10.0.0.7:9000/x"), Some("10.0.0.7".to_owned()));
        for value in
            ["https://minio.city.example", "http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]:9000", "x"]
        {
            assert_eq!(host("AWS_ENDPOINT", value), None, "{value}");
        }
        assert_eq!(host("AWS_METADATA_ENDPOINT", "http://169.254.169.254"), None);
        let later = [("AWS_ENDPOINT", "http://minio"), ("AWS_ENDPOINT", "https://minio")];
        assert_eq!(access(&later).plain_host(&lake("s3://b")), None);
        assert_eq!(access(&[("AWS_ENDPOINT", "http://minio")]).plain_host(&lake("file:///var/lake")), None);
    }

    /// Whichever endpoint was named last counted: a store without TLS was not warned of, nor what it answers looked at again.
    #[test]
    fn the_endpoint_that_is_asked_counts_and_not_the_one_that_is_named_last() {
        let host = |url: &str, variables: &[(&str, &str)]| access(variables).plain_host(&lake(url));
        let (plain, tls) = ("http://minio.lan:9000", "https://sts.example");
        let minio = Some("minio.lan".to_owned());
        assert_eq!(host("s3://b", &[("AWS_ENDPOINT", plain), ("AWS_ENDPOINT_URL_STS", tls)]), minio);
        assert_eq!(host("s3://b", &[("AWS_ENDPOINT", tls), ("AWS_ENDPOINT_URL_STS", plain)]), None);
        for (of_s3, of_all, expected) in [(plain, tls, minio.clone()), (tls, plain, None)] {
            let mut both = [("AWS_ENDPOINT_URL_S3", of_s3), ("AWS_ENDPOINT_URL", of_all)];
            assert_eq!(host("s3://b", &both), expected);
            both.reverse();
            assert_eq!(host("s3://b", &both), expected);
        }
        assert_eq!(host("az://c", &[("AZURE_ENDPOINT", plain), ("AZURE_USE_FABRIC_ENDPOINT", "false")]), minio);
        assert_eq!(host("gs://b", &[("GOOGLE_BASE_URL", plain)]), minio);
    }

    #[test]
    fn no_form_of_a_secret_is_left_in_a_text() {
        let access = access(&[
            ("AWS_SECRET_ACCESS_KEY", "ab/cd+ef=="),
            ("AZURE_STORAGE_SAS_TOKEN", "?sv=2024&sig=q%2Bw%2Fe123"),
            ("AWS_REGION", "eu-north-1"),
        ]);
        let text = "PUT https://x/?sv=2024&sig=q%2Bw%2Fe123 ab/cd+ef== ab%2Fcd%2Bef%3D%3D q+w/e123 eu-north-1";
        let scrubbed = access.secrets(&lake("az://container/x")).scrub(text);
        for part in ["cd+ef", "cd%2Bef", "q%2Bw", "q+w"] {
            assert!(!scrubbed.contains(part), "{part} in {scrubbed}");
        }
        assert!(scrubbed.ends_with("eu-north-1"), "{scrubbed}");
        assert!(!format!("{access:?}").contains("ab/cd"));
    }

    /// A letter too many behind the port made a panic, with a backtrace in front of what `doctor` says.
    #[test]
    fn an_address_that_is_none_is_told_by_its_name() {
        let lake: LakeUrl = "s3://bucket/x".parse().expect("a lake");
        let open = |name: &str, value: &str| super::super::Store::open_with(&lake, &access(&[(name, value)]));
        for (name, value) in [
            ("AWS_ENDPOINT", "http://127.0.0.1:9301x"),
            ("AWS_ENDPOINT_URL", "store.example:9000"),
            ("AWS_ENDPOINT_URL_S3", "ftp://user:c4nary@store.example/"),
        ] {
            let error = open(name, value).expect_err(name).to_string();
            assert!(
                error.contains(name) && error.contains("hint: write https://") && !error.contains("c4nary"),
                "{error}"
            );
        }
        open("AWS_ENDPOINT", "https://store.example:9000").expect("an address");
        open("AZURE_STORAGE_ENDPOINT", "nonsense").expect("another cloud's");
    }

    /// The end of a line behind a key, as editors leave it, ended the program that tried to send it.
    #[test]
    fn what_no_request_can_carry_is_told_by_its_name() {
        let lake: LakeUrl = "s3://bucket/x".parse().expect("a lake");
        let open = |name: &str, value: &str| super::super::Store::open_with(&lake, &access(&[(name, value)]));
        for (name, value) in
            [("AWS_ACCESS_KEY_ID", "c4nary\n"), ("AWS_SESSION_TOKEN", "c4nary-ø"), ("AWS_REGION", "eu\t")]
        {
            let error = open(name, value).expect_err(name).to_string();
            assert!(error.contains(name) && !error.contains("c4nary"), "{error}");
        }
        assert_eq!(access(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/home/bjørn/token")]).unsendable(&lake), None);
        assert_eq!(access(&[("AZURE_STORAGE_TOKEN", "c4nary\n")]).unsendable(&lake), None, "another cloud's");
        assert_eq!(access(&[("AWS_SESSION_TOKEN", "c4/na+ry==")]).unsendable(&lake), None);
    }

    /// "Unable to open service account file from ***" helped nobody.
    #[test]
    fn the_path_of_a_file_is_told_and_what_was_pasted_in_its_place_is_not() {
        let path = "cannot open /etc/tjern/key.json: not found";
        let googles = lake("gs://bucket/x");
        assert_eq!(access(&[("GOOGLE_SERVICE_ACCOUNT", "/etc/tjern/key.json")]).secrets(&googles).scrub(path), path);
        let pasted = access(&[("GOOGLE_SERVICE_ACCOUNT", "{\"private_key\": \"c4nary\"}")]);
        assert_eq!(
            pasted.secrets(&googles).scrub("cannot open {\"private_key\": \"c4nary\"}: not found"),
            "cannot open ***: not found"
        );
    }

    /// A key that comes through a pipe (`<(…)` of a shell) can be read once: who looked for secrets in it left nothing.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_key_that_comes_through_a_pipe_is_left_to_who_needs_it() {
        use std::io::{Read, Write};
        use std::os::fd::AsRawFd;

        let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
        writer.write_all(b"{\"private_key\": \"c4nary\"}").expect("room");
        drop(writer);
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let _ = access(&[("GOOGLE_SERVICE_ACCOUNT", &path)]).secrets(&lake("gs://bucket/x"));
        let mut left = String::new();
        reader.read_to_string(&mut left).expect("read");
        assert!(left.contains("c4nary"), "it was taken: {left}");
    }

    /// A key on one line, as variables have it, is shown byte by byte by the reader of PEM; one that is no document at all as
    /// it is.
    #[test]
    fn what_a_file_of_a_service_account_holds_is_not_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key.json");
        let open = |text: &str| {
            std::fs::write(&file, text).expect("written");
            let access = access(&[("GOOGLE_SERVICE_ACCOUNT", &file.display().to_string())]);
            super::super::Store::open_with(&"gs://bucket/x".parse().expect("a lake"), &access)
        };
        let account = |key: &str, more: &str| {
            format!("{{\"private_key\":\"{key}\",\"private_key_id\":\"c4nary-id\",\"client_email\":\"a@b\"{more}}}")
        };
        let one_line = "-----BEGIN PRIVATE KEY-----\\\\nc4naryc4nary\\\\n-----END PRIVATE KEY-----\\\\n";
        for wrong in [
            "\"c4nary-secret\"",
            "c4nary-secret",
            &account("c4nary-secret", ""),
            &account("c4nary-secret", ",\"disable_oauth\":\"c4nary-secret\""),
            &account(one_line, ""),
            &account("-----BEGIN PRIVATE KEY----- c4naryc4nary -----END PRIVATE KEY-----", ""),
            &account("-----BEGIN PRIVATE KEY-----\\nc4naryc4nary\\n", ""),
            &account("-----BEGIN PRIVATE KEY-----\\nc4naryc4nary\\n-----END PRIVATE KEY-----\\n", ""),
        ] {
            let shown = open(wrong).expect_err(wrong).to_string();
            let bytes = "c4nary".bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
            assert!(!shown.contains("c4nary") && !shown.contains(&bytes), "{wrong}: {shown}");
            assert!(shown.contains("gs://bucket/x"), "{shown}");
        }
    }
}
