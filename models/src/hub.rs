//! A model by its name: a folder of this machine, or a repository of the Hugging Face hub.

use std::path::{Path, PathBuf};

use crate::error::ModelError;

#[cfg(feature = "hub")]
mod download;

/// Where models are fetched from and kept.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    /// The server; `None` is `HF_ENDPOINT`, or else the public hub.
    pub endpoint: Option<String>,
    /// The cache, laid out as huggingface_hub lays out its own, so the two share files; `None` is
    /// `hub` in `HF_HOME`, or else in `~/.cache/huggingface`.
    pub cache: Option<PathBuf>,
}

/// How far the download of one file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download<'a> {
    /// The file's name in the repository.
    pub file: &'a str,
    /// Bytes that are here.
    pub done_bytes: u64,
    /// Bytes of the whole file.
    pub total_bytes: u64,
}

impl Hub {
    /// The folder of a model. An existing folder is taken as it is; anything else must be
    /// `owner/name` or `owner/name@revision`, whose configuration, tokenizer and safetensors
    /// weights are downloaded where the cache lacks them. All files are of one commit. When the
    /// server cannot be reached, the commit that was fetched last is used.
    ///
    /// Blocks. `progress` is called often.
    ///
    /// # Errors
    /// [`ModelError::ModelNotFound`] with what was tried.
    pub fn resolve(
        &self,
        model: &str,
        progress: &mut dyn FnMut(Download),
    ) -> Result<PathBuf, ModelError> {
        let folder = Path::new(model);
        if folder.is_dir() {
            return Ok(folder.to_path_buf());
        }
        let not_found = |reason: String| ModelError::ModelNotFound {
            model: model.to_string(),
            reason,
        };
        match RepoName::parse(model) {
            Some(repo) => self.download(&repo, progress).map_err(not_found),
            None => Err(not_found(
                "there is no such folder, and it is not a name of the hub \
                 (owner/name or owner/name@revision)"
                    .to_string(),
            )),
        }
    }

    #[cfg(not(feature = "hub"))]
    fn download(
        &self,
        _repo: &RepoName,
        _progress: &mut dyn FnMut(Download),
    ) -> Result<PathBuf, String> {
        Err(
            "there is no such folder, and this build has no access to the hub \
             (feature `hub`)"
                .to_string(),
        )
    }
}

/// [`Hub::resolve`] with the server of the environment and, where given, another cache.
///
/// # Errors
/// As [`Hub::resolve`].
pub fn resolve(
    model: &str,
    cache: Option<&Path>,
    progress: &mut dyn FnMut(Download),
) -> Result<PathBuf, ModelError> {
    Hub {
        endpoint: None,
        cache: cache.map(Path::to_path_buf),
    }
    .resolve(model, progress)
}

/// A repository and a revision of it.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "hub"), allow(dead_code))]
struct RepoName {
    repo: String,
    revision: String,
}

impl RepoName {
    /// Takes `owner/name[@revision]`, each part of letters, digits, `-`, `_` and `.`, so that
    /// none can lead out of the cache or into another address of the server.
    fn parse(text: &str) -> Option<RepoName> {
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
        let good = plain(owner) && plain(name) && revision.split('/').all(plain);
        good.then(|| RepoName {
            repo: repo.to_string(),
            revision: revision.to_string(),
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
            })
        };
        assert_eq!(RepoName::parse("a/b"), name("a/b", "main"));
        assert_eq!(
            RepoName::parse("Qwen/Qwen2.5-0.5B@refs/pr/3"),
            name("Qwen/Qwen2.5-0.5B", "refs/pr/3")
        );
        for bad in [
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
