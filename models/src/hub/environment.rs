//! The environment variables that huggingface_hub documents, read as it reads them.

use std::env;
use std::fs;
use std::path::PathBuf;

use super::{HubToken, ModelHub};

impl ModelHub {
    /// The hub that the environment of this process describes.
    ///
    /// # Errors
    /// A message that names the variable or the file that cannot be used.
    pub fn from_env() -> Result<Self, String> {
        let home = env::home_dir();
        Self::from_variables(&|name| match name {
            "HOME" => Some(home.as_ref()?.to_str()?.to_string()),
            _ => env::var(name).ok(),
        })
    }

    /// The hub that these variables describe; an empty one counts as absent.
    ///
    /// * `HF_ENDPOINT`: the server.
    /// * `HF_HUB_CACHE`, or else `HUGGINGFACE_HUB_CACHE`, or else `hub` in `HF_HOME`, or else in
    ///   `huggingface` of `XDG_CACHE_HOME`, or else of `~/.cache`: the cache.
    /// * `HF_TOKEN`, or else `HUGGING_FACE_HUB_TOKEN`, or else the file `HF_TOKEN_PATH`, or else
    ///   `token` in `HF_HOME`: the token; none with `HF_HUB_DISABLE_IMPLICIT_TOKEN`.
    /// * `HF_HUB_OFFLINE`, or else `TRANSFORMERS_OFFLINE`: no server is asked.
    ///
    /// # Errors
    /// A message that names the variable or the file that cannot be used.
    pub fn from_variables(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let path = |name: &str| get(name).map(|text| expanded(&text, &get));
        let home = path("HF_HOME").or_else(|| {
            let cache = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache")))?;
            Some(cache.join("huggingface"))
        });
        let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let is_true = |name: &str| {
            let value = get(name).unwrap_or_default().to_ascii_uppercase();
            ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
        };
        let offline = match get("HF_HUB_OFFLINE") {
            Some(_) => is_true("HF_HUB_OFFLINE"),
            None => is_true("TRANSFORMERS_OFFLINE"),
        };
        let token = match ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
            .into_iter()
            .find_map(|name| Some((name, get(name)?)))
        {
            _ if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") => None,
            Some((name, text)) => HubToken::new(name, &text)?,
            None => match path("HF_TOKEN_PATH").or_else(|| in_home("token")) {
                Some(file) => token_of(file)?,
                None => None,
            },
        };
        Ok(Self {
            endpoint: get("HF_ENDPOINT"),
            cache: path("HF_HUB_CACHE")
                .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                .or_else(|| in_home("hub")),
            token,
            offline,
        })
    }
}

/// The token in a file; `None` where the file does not exist.
fn token_of(file: PathBuf) -> Result<Option<HubToken>, String> {
    let place = file.display();
    match fs::read_to_string(&file) {
        Ok(text) => HubToken::new(&place.to_string(), &text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read the token in {place}: {error}")),
    }
}

/// A path with `~`, `$NAME` and `${NAME}` expanded. Names that are not set stay as they are.
fn expanded(text: &str, get: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let mut out = String::new();
    let mut rest = text.trim();
    if let Some(after) = rest.strip_prefix('~')
        && (after.is_empty() || after.starts_with('/'))
        && let Some(home) = get("HOME")
    {
        out.push_str(&home);
        rest = after;
    }
    while let Some(start) = rest.find('$') {
        out.push_str(&rest[..start]);
        let after = &rest[start + 1..];
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, end) = match after
            .strip_prefix('{')
            .and_then(|after| after.split_once('}'))
        {
            Some((name, _)) => (name, name.len() + 2),
            None => {
                let end = after.find(|c| !is_part(c)).unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        match get(name) {
            Some(value) => out.push_str(&value),
            None => out.push_str(&rest[start..start + 1 + end]),
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    PathBuf::from(out)
}
