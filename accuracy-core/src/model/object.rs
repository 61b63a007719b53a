//! The JSON objects of a configuration, and what can be wrong with them.

use serde_json::Value;
use std::path::{Path, PathBuf};

/// Why a model's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{}: cannot be read: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: {reason}", path.display())]
    Bad { path: PathBuf, reason: String },
    #[error(
        "{}: model_type `{model_type}` is not known; known: {}. Describe its operations in a mapping file (--mapping)",
        path.display(), known.join(", ")
    )]
    Unknown { path: PathBuf, model_type: String, known: Vec<&'static str> },
}

/// A JSON object and the file it is from.
#[derive(Clone, Debug)]
pub struct Object {
    path: PathBuf,
    pub(super) value: serde_json::Map<String, Value>,
}

impl Object {
    pub fn read(path: &Path) -> Result<Object, ModelError> {
        let text = crate::files::read(path, crate::files::TEXT)
            .map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
        let bad = |reason: String| ModelError::Bad { path: path.to_owned(), reason };
        match serde_json::from_slice(&text).map_err(|e| bad(format!("not JSON: {e}")))? {
            Value::Object(value) => Ok(Object { path: path.to_owned(), value }),
            _ => Err(bad("not a JSON object".to_owned())),
        }
    }

    pub fn bad(&self, reason: String) -> ModelError {
        ModelError::Bad { path: self.path.clone(), reason }
    }

    pub fn missing(&self, key: &str) -> ModelError {
        self.bad(format!("`{key}` is missing, or not what it should be"))
    }

    pub fn number(&self, key: &str) -> Option<f64> {
        self.value.get(key)?.as_f64()
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        self.value.get(key)?.as_bool()
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.value.get(key)?.as_str()
    }

    pub fn object(&self, key: &str) -> Option<Object> {
        let value = self.value.get(key)?.as_object()?.clone();
        Some(Object { path: self.path.clone(), value })
    }

    /// The objects that it has as values.
    pub fn values(&self) -> Vec<Object> {
        let objects = self.value.values().filter_map(|v| v.as_object());
        objects.map(|v| Object { path: self.path.clone(), value: v.clone() }).collect()
    }

    pub fn list(&self, key: &str) -> Option<&[Value]> {
        Some(self.value.get(key)?.as_array()?)
    }

    pub fn count(&self, key: &str) -> Option<usize> {
        usize::try_from(self.value.get(key)?.as_u64()?).ok()
    }

    /// A count that may be left out or `null`, but is not zero.
    pub fn optional(&self, key: &str) -> Result<Option<usize>, ModelError> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match self.count(key).filter(|&n| n > 0) {
                Some(n) => Ok(Some(n)),
                None => Err(self.bad(format!("`{key}` is {value}, expected a count"))),
            },
        }
    }

    /// An object under the first of several names that is there and not `null`.
    pub fn optional_object(&self, keys: &[&str]) -> Result<Option<Object>, ModelError> {
        let there = keys.iter().find(|key| self.value.get(**key).is_some_and(|v| !v.is_null()));
        let Some(key) = there else { return Ok(None) };
        self.object(key).map(Some).ok_or_else(|| self.bad(format!("`{key}` is not an object")))
    }

    /// A count under the first of several names that is there, and not zero.
    pub fn need(&self, keys: &[&str]) -> Result<usize, ModelError> {
        let found = keys.iter().find_map(|key| self.count(key)).filter(|&n| n > 0);
        let there = keys.iter().find(|key| self.value.contains_key(**key));
        found.ok_or_else(|| self.missing(there.unwrap_or(&keys[0])))
    }
}
