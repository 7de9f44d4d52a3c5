//! Where the pipeline tells of its commits, as `[serve] pipeline` says it.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;
use serde::Deserialize;

/// The address of a pipeline: the `[jobs] listen` of `tjern pipeline run`, as a URL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PipelineAddress(Url);

impl PipelineAddress {
    /// Where versions are asked for.
    pub(super) fn versions(&self) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("versions");
        }
        url
    }
}

impl FromStr for PipelineAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("{what}; write the pipeline's `[jobs] listen` as a URL, like \"http://127.0.0.1:8082\"")
        };
        let url = Url::parse(text).map_err(|error| wrong(&format!("this is no URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("this is neither http:// nor https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("a pipeline asks for no name and no password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("an address ends before `?` and `#`"));
        }
        Ok(Self(url))
    }
}

impl TryFrom<String> for PipelineAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for PipelineAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_url_and_nothing_more() {
        let asked = |text: &str| text.parse::<PipelineAddress>().map(|address| address.versions().to_string());
        assert_eq!(asked("http://127.0.0.1:8082"), Ok("http://127.0.0.1:8082/versions".into()));
        assert_eq!(
            asked("https://tjern.example.org/pipeline/"),
            Ok("https://tjern.example.org/pipeline/versions".into())
        );
        assert_eq!(asked("http://[::1]:8082/"), Ok("http://[::1]:8082/versions".into()));
        for wrong in
            ["127.0.0.1:8082", "localhost:8082", "http://", "ftp://x", "http://a:b@x", "http://x/?y", "file:///x"]
        {
            let error = asked(wrong).expect_err(wrong);
            assert!(error.contains("like \"http://127.0.0.1:8082\""), "{wrong}: {error}");
        }
    }
}
