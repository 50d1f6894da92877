//! Finds a model by its name: a folder on this machine, or a repository of the Hugging Face hub.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::ModelError;

#[cfg(feature = "hub")]
mod data;
#[cfg(feature = "hub")]
mod download;
mod environment;

/// Where models are fetched from and kept. [`ModelHub::from_env`] reads it from the environment.
#[derive(Clone, Debug, Default)]
pub struct ModelHub {
    /// The server; `None` is the public hub.
    pub endpoint: Option<String>,
    /// The cache, laid out as huggingface_hub lays out its own, so the two share files.
    pub cache: Option<PathBuf>,
    /// The user's token; without one, only public models can be fetched.
    pub token: Option<HubToken>,
    /// Whether no server is asked; only models in the cache are then found.
    pub offline: bool,
}

/// A token of the hub. It is never shown, not even in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct HubToken(String);

impl HubToken {
    /// The token in `text`, without the white space around it; `None` where nothing is left.
    ///
    /// # Errors
    /// Where the text cannot be a token; the message names `place`, not the text.
    pub fn new(place: &str, text: &str) -> Result<Option<Self>, String> {
        let text = text.trim();
        match text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true if text.is_empty() => Ok(None),
            true => Ok(Some(Self(text.to_string()))),
            false => Err(format!(
                "the token in {place} cannot be one: it has spaces, line ends or other characters \
                 that no token has; copy it again from the settings of the hub"
            )),
        }
    }

    /// The token itself, for a header of a request.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HubToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HubToken(..)")
    }
}

/// The progress of the download of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download<'a> {
    /// The file's name in the repository.
    pub file: &'a str,
    /// Bytes that are on this machine.
    pub done_bytes: u64,
    /// Bytes of the whole file.
    pub total_bytes: u64,
}

impl ModelHub {
    /// The folder of a model, or its GGUF file. An existing path is taken as it is. Anything else
    /// must be `owner/name` or `owner/name@revision`, whose configuration, tokenizer and
    /// safetensors weights are downloaded where the cache lacks them; or such a name followed by
    /// `/FILE.gguf`, for which that file and the other parts of its model are downloaded. All files
    /// are of one commit. If the server does not answer, or may not be asked, the commit that was
    /// fetched last is used.
    ///
    /// Blocks the thread. `progress` is called often.
    ///
    /// # Errors
    /// [`ModelError::ModelNotFound`] with what was tried.
    pub fn resolve(
        &self,
        model: &str,
        progress: &mut dyn FnMut(Download),
    ) -> Result<PathBuf, ModelError> {
        self.find(model, Wanted::Model, progress)
    }

    /// As [`Self::resolve`], but only `config.json` is downloaded. The folder has other files only
    /// if they were fetched before.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_config(&self, model: &str) -> Result<PathBuf, ModelError> {
        self.find(model, Wanted::Config, &mut |_| ())
    }

    fn find(
        &self,
        model: &str,
        wanted: Wanted,
        progress: &mut dyn FnMut(Download),
    ) -> Result<PathBuf, ModelError> {
        if is_here(model) {
            return Ok(PathBuf::from(model));
        }
        let not_found = |reason: String| ModelError::ModelNotFound {
            model: model.to_string(),
            reason,
        };
        match RepoName::parse(model) {
            Some(repo) => self.download(&repo, wanted, progress).map_err(not_found),
            None => Err(not_found(
                "there is no such folder, and it is not a name of the hub \
                 (owner/name or owner/name@revision, and /FILE.gguf for one of its GGUF files)"
                    .to_string(),
            )),
        }
    }

    #[cfg(not(feature = "hub"))]
    fn download(
        &self,
        _repo: &RepoName,
        _wanted: Wanted,
        _progress: &mut dyn FnMut(Download),
    ) -> Result<PathBuf, String> {
        Err(
            "there is no such folder, and this build has no access to the hub \
             (feature `hub`)"
                .to_string(),
        )
    }
}

/// [`ModelHub::resolve`] with the hub of the environment and, where given, another cache.
///
/// # Errors
/// As [`ModelHub::resolve`].
pub fn resolve(
    model: &str,
    cache: Option<&Path>,
    progress: &mut dyn FnMut(Download),
) -> Result<PathBuf, ModelError> {
    if is_here(model) {
        return Ok(PathBuf::from(model));
    }
    let mut hub = ModelHub::from_env().map_err(|reason| ModelError::ModelNotFound {
        model: model.to_string(),
        reason,
    })?;
    if let Some(cache) = cache {
        hub.cache = Some(cache.to_path_buf());
    }
    hub.resolve(model, progress)
}

/// Whether a name is the path of a folder or of a GGUF file on this machine.
pub fn is_here(model: &str) -> bool {
    let path = Path::new(model);
    path.is_dir() || (path.extension().is_some_and(|end| end == "gguf") && path.is_file())
}

/// [`ModelHub::resolve_config`] with the hub of the environment.
///
/// # Errors
/// As [`ModelHub::resolve_config`].
pub fn resolve_config(model: &str) -> Result<PathBuf, ModelError> {
    if is_here(model) {
        return Ok(PathBuf::from(model));
    }
    let hub = ModelHub::from_env().map_err(|reason| ModelError::ModelNotFound {
        model: model.to_string(),
        reason,
    })?;
    hub.resolve_config(model)
}

/// Chooses files of a data set by the names of all, and by its README.md where it has one; or says
/// why it cannot, in half a sentence.
pub type ChooseFiles<'a> = dyn Fn(&[&str], Option<&str>) -> Result<Vec<String>, String> + 'a;

/// Whether a text may be the name of a repository: `owner/name`.
pub fn is_data_name(name: &str) -> bool {
    let plain = RepoName::parse(name);
    plain.is_some_and(|plain| plain.file.is_none() && plain.repo == name)
}

/// Files of a data set of the hub of the environment, in the cache, where those that it lacks are
/// downloaded. All are of one commit. If the server does not answer, or may not be asked, the
/// commit that was fetched last is used.
///
/// # Errors
/// [`ModelError::DataNotFound`] with what was tried.
pub fn data_files(
    repo: &str,
    revision: &str,
    choose: &ChooseFiles,
    progress: &mut dyn FnMut(Download),
) -> Result<Vec<PathBuf>, ModelError> {
    let not_found = |reason: String| ModelError::DataNotFound {
        name: repo.to_string(),
        reason,
    };
    let hub = ModelHub::from_env().map_err(not_found)?;
    hub.data_files(repo, revision, choose, progress)
}

impl ModelHub {
    /// As [`data_files`], of this hub.
    ///
    /// # Errors
    /// As there.
    pub fn data_files(
        &self,
        repo: &str,
        revision: &str,
        choose: &ChooseFiles,
        progress: &mut dyn FnMut(Download),
    ) -> Result<Vec<PathBuf>, ModelError> {
        let not_found = |reason: String| ModelError::DataNotFound {
            name: repo.to_string(),
            reason,
        };
        let name = RepoName::parse(&format!("{repo}@{revision}"));
        let name = name.map(|name| RepoName {
            is_data: true,
            ..name
        });
        match name {
            Some(name) => self.fetch_data(&name, choose, progress).map_err(not_found),
            None => Err(not_found(format!(
                "{repo}@{revision} is no name of the hub (owner/name, and a revision)"
            ))),
        }
    }

    #[cfg(not(feature = "hub"))]
    fn fetch_data(
        &self,
        _name: &RepoName,
        _choose: &ChooseFiles,
        _progress: &mut dyn FnMut(Download),
    ) -> Result<Vec<PathBuf>, String> {
        Err("this build has no access to the hub (feature `hub`)".to_string())
    }
}

/// Which files of a repository are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "hub"), allow(dead_code))]
enum Wanted {
    /// `config.json`.
    Config,
    /// All files of a model.
    Model,
}

/// A repository and a revision of it.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "hub"), allow(dead_code))]
struct RepoName {
    repo: String,
    revision: String,
    /// A GGUF file of the repository, where that is the model.
    file: Option<String>,
    /// Whether it is one of data, not of a model.
    is_data: bool,
}

impl RepoName {
    /// Parses `owner/name[@revision]`, or `owner/name[@revision]/FILE.gguf` with a revision that
    /// has no `/`. Each part consists of letters, digits, `-`, `_` and `.`, so that none can lead
    /// out of the cache or to another address of the server.
    fn parse(text: &str) -> Option<RepoName> {
        let mut slashes = text.match_indices('/').map(|(at, _)| at);
        let file = slashes.nth(1).filter(|_| text.ends_with(".gguf"));
        let (text, file) = match file {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        let (repo, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (owner, name) = repo.split_once('/')?;
        let plain = |part: &str| {
            !part.is_empty()
                && part.len() <= 96
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let is_plain = |path: &str| path.split('/').all(plain);
        let good = plain(owner) && plain(name) && is_plain(revision) && file.is_none_or(is_plain);
        good.then(|| RepoName {
            repo: repo.to_string(),
            revision: revision.to_string(),
            file: file.map(str::to_string),
            is_data: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories() {
        let name = |repo: &str, revision: &str| {
            Some(RepoName {
                repo: repo.to_string(),
                revision: revision.to_string(),
                file: None,
                is_data: false,
            })
        };
        assert_eq!(RepoName::parse("a/b"), name("a/b", "main"));
        assert_eq!(
            RepoName::parse("Qwen/Qwen2.5-0.5B@refs/pr/3"),
            name("Qwen/Qwen2.5-0.5B", "refs/pr/3")
        );
        for (text, revision, file) in [
            ("a/b/c.Q4_K_M.gguf", "main", "c.Q4_K_M.gguf"),
            (
                "a/b@v1/d/c-00001-of-00002.gguf",
                "v1",
                "d/c-00001-of-00002.gguf",
            ),
        ] {
            let found = RepoName::parse(text).unwrap();
            assert_eq!((&*found.repo, &*found.revision), ("a/b", revision));
            assert_eq!(found.file.as_deref(), Some(file));
        }
        for bad in [
            "a/b/../c.gguf",
            "a/b//c.gguf",
            "a/b/.gguf",
            "a",
            "a/",
            "/b",
            "a/b/c",
            "../b",
            "a/..",
            "a/b@../../c",
            "a/b@",
            "a/b c",
            "a/b?x",
        ] {
            assert_eq!(RepoName::parse(bad), None, "{bad}");
        }
    }
}
