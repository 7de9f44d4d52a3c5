//! Who changed what was stored, when and why: for as long as the lake.
//!
//! A commit's notes say it too, but a log is cleaned after a day. `corrections/<id>.json` is created once, before its
//! commit; one whose commit did not take place has no transaction `:correction/<id>` (or, of a validation,
//! `:validation/<id>`) in `readings` and means nothing.

use std::collections::BTreeMap;

use object_store::{ObjectStore, PutMode, PutPayload};
use serde_json::{Value, json};
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys;

use super::utc;

/// Who does something, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// A person's name, as the city writes it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// The record of one change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    id: String,
    words: BTreeMap<String, Value>,
    /// Whether it is of a change that was made before, and lies in the lake already.
    is_kept: bool,
}

impl Record {
    /// A record of what is asked for now: `kind` is the command's name, `what` its words.
    pub(crate) fn new(lake: &Lake, kind: &str, author: &Author, what: Value) -> Self {
        let mut words = BTreeMap::from([
            ("kind".to_owned(), json!(kind)),
            ("by".to_owned(), json!(author.by)),
            ("at".to_owned(), json!(utc(lake.clock().now_us()))),
        ]);
        words.extend(author.reason.iter().map(|reason| ("reason".to_owned(), json!(reason))));
        if let Value::Object(what) = what {
            words.extend(what.into_iter().filter(|(_, value)| !value.is_null()));
        }
        Self { id: String::new(), words, is_kept: false }
    }

    /// The record that was kept of a change, which is made once more.
    pub(crate) const fn kept(id: String, words: BTreeMap<String, Value>) -> Self {
        Self { id, words, is_kept: true }
    }

    /// The same with a count of rows, under an id of its own.
    pub(crate) fn with_rows(&self, rows: usize) -> Self {
        if self.is_kept {
            return self.clone();
        }
        let mut words = self.words.clone();
        words.insert("rows".to_owned(), json!(rows));
        Self { id: tjern_readings::sensor::Epoch::random().to_string(), words, is_kept: false }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What stands in the commit beside the rows.
    pub(crate) fn notes(&self) -> BTreeMap<String, Value> {
        let noted = self.words.iter().map(|(key, value)| (format!("tjern.{key}"), value.clone()));
        noted.chain([("tjern.correction".to_owned(), json!(self.id))]).collect()
    }

    /// Creates the object.
    pub(crate) async fn write(&self, lake: &Lake) -> Result<(), LakeError> {
        if self.is_kept {
            return Ok(());
        }
        let key = keys::correction(&self.id);
        let mut words = self.words.clone();
        words.insert("id".to_owned(), json!(self.id));
        let bytes = serde_json::to_vec_pretty(&words).unwrap_or_default();
        match lake.objects().put_opts(&key, PutPayload::from(bytes), PutMode::Create.into()).await {
            // The store's own retry may have met our own object: nobody else draws this id.
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(source) => Err(LakeError::store(key, source)),
        }
    }
}
