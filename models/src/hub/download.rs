//! Downloads files of a hub repository into the cache, through hf-hub.

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use super::{Download, ModelHub, RepoName, Wanted};
use crate::companions::is_companion;
use crate::weights::{Layout, OLDER_METHODS, gguf_parts, other_weights, shard_names};

const CONFIG: &str = "config.json";

/// At most so many files are named in a message.
const SHOWN_MAX: usize = 40;

/// Attempts at a download; each continues where the previous one broke off.
const RETRIES: usize = 3;

/// The server where none is named.
const PUBLIC: &str = "https://huggingface.co";

impl ModelHub {
    pub(super) fn download(
        &self,
        name: &RepoName,
        wanted: Wanted,
        progress: &mut dyn FnMut(Download),
    ) -> Result<PathBuf, String> {
        let path = self.cache.clone().ok_or_else(|| {
            "there is no such folder, and no place to keep downloads: set HF_HOME".to_string()
        })?;
        let cache = Cache::new(path);
        if self.offline {
            return cached(&cache, name).ok_or_else(|| {
                format!(
                    "there is no such folder, {}@{} is not in the cache {}, and HF_HUB_OFFLINE (or \
                     TRANSFORMERS_OFFLINE) is set: unset it to download the model",
                    name.repo,
                    name.revision,
                    cache.path().display()
                )
            });
        }
        let api = self.api(&cache)?;
        let asked = repo_at(name, &name.revision);
        match api.repo(asked.clone()).info() {
            Ok(info) => {
                // The commit becomes part of a path in the cache.
                if !info.sha.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                    return Err(format!("the hub names the commit {:?}", info.sha));
                }
                let files: Vec<&str> = info.siblings.iter().map(|f| f.rfilename.as_str()).collect();
                // From here on by commit: a push in the meantime must not mix two versions.
                let commit = Fetch {
                    api: &api,
                    cache: &cache,
                    repo: repo_at(name, &info.sha),
                    sha: &info.sha,
                    explain: &|error| self.explain(name, error),
                };
                let found = match (wanted, &name.file) {
                    (_, Some(file)) => commit.gguf(file, &files, progress)?,
                    (Wanted::Model, None) => commit.all(&files, progress)?,
                    (Wanted::Config, None) => commit.config(&files, progress)?,
                };
                let noted = cache.repo(asked).create_ref(&info.sha);
                noted.map_err(|error| format!("cannot write its cache: {error}"))?;
                Ok(found)
            }
            Err(error) => cached(&cache, name).ok_or_else(|| {
                format!(
                    "there is no such folder, and the hub did not give {}@{}: {}",
                    name.repo,
                    name.revision,
                    self.explain(name, &error)
                )
            }),
        }
    }

    pub(super) fn api(&self, cache: &Cache) -> Result<Api, String> {
        let endpoint = self.endpoint.as_deref().unwrap_or(PUBLIC);
        let builder = ApiBuilder::from_cache(cache.clone())
            .with_retries(RETRIES)
            .with_token(self.token.as_ref().map(|token| token.0.clone()))
            .with_endpoint(endpoint.trim_end_matches('/').to_string());
        builder.build().map_err(|error| error.to_string())
    }

    /// An error of the server as a sentence that says what would help. Without a valid token, the
    /// server does not say whether a repository is private or does not exist.
    pub(super) fn explain(&self, name: &RepoName, error: &ApiError) -> String {
        let text = error.to_string();
        let status = text.rsplit_once("http status: ").map(|(_, status)| status);
        let server = self.endpoint.as_deref().unwrap_or(PUBLIC);
        let give = format!(
            "set HF_TOKEN to a token that may read it ({}/settings/tokens)",
            server.trim_end_matches('/')
        );
        let accept = format!(
            "accept its conditions at {}/{} with the account of the token",
            server.trim_end_matches('/'),
            name.repo
        );
        match (status, &self.token) {
            (Some("401" | "403" | "404"), None) => format!(
                "{text}. It is not there, or it is private or gated, and no token was sent: check \
                 the name, or {give}; for a gated model, {accept}"
            ),
            (Some("401"), Some(_)) => format!(
                "{text}. The token that was sent is not accepted (it may have expired), or may not \
                 read this model: {give}"
            ),
            (Some("403"), Some(_)) => format!(
                "{text}. The token that was sent may not read this model: {accept}, or {give}"
            ),
            (Some("404"), Some(_)) => format!(
                "{text}. It is not there, or the token that was sent may not see it: check the \
                 name, or {give}"
            ),
            _ => text,
        }
    }
}

/// The folder of a repository in the cache, or a GGUF file of it. huggingface_hub records (under
/// `refs`) the commits of branches, but not a commit that was asked for by its hash.
fn cached(cache: &Cache, name: &RepoName) -> Option<PathBuf> {
    let repo = cache.repo(repo_at(name, &name.revision));
    let file = name.file.as_deref().unwrap_or(CONFIG);
    let noted = repo.get(file);
    let named = repo.pointer_path(&name.revision).join(file);
    let found = noted.or_else(|| Some(named).filter(|path| path.is_file()))?;
    match name.file {
        Some(_) => Some(found),
        None => found.parent().map(Path::to_path_buf),
    }
}

pub(super) fn repo_at(name: &RepoName, revision: &str) -> Repo {
    let kind = match name.is_data {
        true => RepoType::Dataset,
        false => RepoType::Model,
    };
    Repo::with_revision(name.repo.clone(), kind, revision.to_string())
}

/// One commit of a repository.
pub(super) struct Fetch<'a> {
    pub api: &'a Api,
    pub cache: &'a Cache,
    pub repo: Repo,
    pub sha: &'a str,
    pub explain: &'a dyn Fn(&ApiError) -> String,
}

impl Fetch<'_> {
    /// Fetches a GGUF file, with the other parts of its model, and returns its path.
    fn gguf(
        &self,
        file: &str,
        files: &[&str],
        progress: &mut dyn FnMut(Download),
    ) -> Result<PathBuf, String> {
        if !files.contains(&file) {
            let instead = gguf_files(files);
            return Err(format!("the repository has no {file}{instead}"));
        }
        for part in gguf_parts(file) {
            self.one(&part, files, progress)?;
        }
        self.one(file, files, progress)
    }

    /// Fetches the configuration, and returns its folder.
    fn config(
        &self,
        files: &[&str],
        progress: &mut dyn FnMut(Download),
    ) -> Result<PathBuf, String> {
        if !files.contains(&CONFIG) {
            let instead = gguf_files(files);
            return Err(format!("the repository has no {CONFIG}{instead}"));
        }
        let config = self.one(CONFIG, files, progress)?;
        let folder = config.parent().map(Path::to_path_buf);
        folder.ok_or_else(|| "the cache has no folder".to_string())
    }

    /// Fetches those of `files` that a model folder needs, and returns the folder.
    fn all(&self, files: &[&str], progress: &mut dyn FnMut(Download)) -> Result<PathBuf, String> {
        let folder = self.config(files, progress)?;
        let needed = |file: &&&str| is_companion(file) || OLDER_METHODS.contains(file);
        for file in files.iter().filter(needed) {
            self.one(file, files, progress)?;
        }
        let has = |layout: &Layout| files.contains(&layout.single) || files.contains(&layout.index);
        match Layout::ALL.into_iter().find(has) {
            Some(layout) if files.contains(&layout.single) => {
                self.one(layout.single, files, progress)?;
            }
            Some(layout) => {
                let index = self.one(layout.index, files, progress)?;
                for shard in shard_names(&index).map_err(|error| error.to_string())? {
                    self.one(&shard, files, progress)?;
                }
            }
            None => {
                let names = files.iter().map(|name| name.to_string());
                let instead =
                    other_weights(names).map_or(String::new(), |found| format!("; {found}"));
                let [safetensors, pickle] = Layout::ALL.map(|layout| layout.single);
                return Err(format!(
                    "the repository has neither {safetensors} nor {pickle}, nor an index of \
                     either{instead}"
                ));
            }
        }
        Ok(folder)
    }

    pub fn one(
        &self,
        file: &str,
        files: &[&str],
        progress: &mut dyn FnMut(Download),
    ) -> Result<PathBuf, String> {
        if !files.contains(&file) {
            return Err(format!("the repository has no {file}"));
        }
        // By the commit itself: huggingface_hub writes no record under `refs` for it.
        let path = self.cache.repo(self.repo.clone()).pointer_path(self.sha);
        let path = path.join(file);
        if path.exists() {
            return Ok(path);
        }
        let repo = self.api.repo(self.repo.clone());
        let mut reached = 0;
        let mut has_begun_anew = false;
        loop {
            let (mut done_bytes, mut total_bytes) = (0, 0);
            let report = Report {
                file,
                done_bytes: &mut done_bytes,
                total_bytes: &mut total_bytes,
                progress,
            };
            match repo.download_with_progress(file, report) {
                Ok(path) if is_of(&path, total_bytes) => return Ok(path),
                // After an old partial file and a failed first request, hf-hub appends the
                // whole file to the part.
                Ok(path) if !has_begun_anew => {
                    has_begun_anew = true;
                    forget(&path).map_err(|why| format!("cannot remove {file}: {why}"))?;
                }
                Ok(_) => return Err(format!("{file} came with another length than it has")),
                // Attempts that made progress do not count: over an unstable link a large
                // file comes in many pieces.
                Err(_) if done_bytes > reached => reached = done_bytes,
                Err(_) if !has_begun_anew && self.drop_whole_part(&repo.url(file)) => {
                    has_begun_anew = true;
                }
                Err(error) => {
                    let reason = (self.explain)(&error);
                    return Err(format!(
                        "cannot download {file}: {reason}. What came so far is kept: the same \
                         command goes on from there"
                    ));
                }
            }
        }
    }

    /// Removes a partial file that already has all bytes: a process ended before it renamed the
    /// file, and a request for the rest would fail, since no byte is left to send.
    fn drop_whole_part(&self, url: &str) -> bool {
        let Ok(metadata) = self.api.metadata(url) else {
            return false;
        };
        let blob = self
            .cache
            .repo(self.repo.clone())
            .blob_path(metadata.etag());
        let part = blob.with_extension("part");
        let is_whole = fs::metadata(&part).is_ok_and(|part| part.len() >= metadata.size() as u64);
        is_whole && fs::remove_file(&part).is_ok()
    }
}

/// A remark on the GGUF files of the repository, and how to name one.
fn gguf_files(files: &[&str]) -> String {
    let found: Vec<&str> = files
        .iter()
        .copied()
        .filter(|file| file.ends_with(".gguf"))
        .take(SHOWN_MAX)
        .collect();
    match found.is_empty() {
        true => String::new(),
        false => format!(
            "; it has GGUF files, of which one is named as owner/name/FILE: {}",
            found.join(", ")
        ),
    }
}

/// Whether a file is `bytes` long.
fn is_of(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() == bytes)
}

/// Removes a file of the cache, and the blob that it links to.
fn forget(path: &Path) -> std::io::Result<()> {
    let blob = fs::canonicalize(path)?;
    fs::remove_file(path)?;
    match blob == path {
        true => Ok(()),
        false => fs::remove_file(blob),
    }
}

/// Turns hf-hub's progress calls into [`Download`]s.
struct Report<'a> {
    file: &'a str,
    done_bytes: &'a mut u64,
    total_bytes: &'a mut u64,
    progress: &'a mut dyn FnMut(Download),
}

impl Progress for Report<'_> {
    fn init(&mut self, size: usize, _file: &str) {
        (*self.done_bytes, *self.total_bytes) = (0, size as u64);
    }

    fn update(&mut self, size: usize) {
        *self.done_bytes += size as u64;
        (self.progress)(Download {
            file: self.file,
            done_bytes: *self.done_bytes,
            total_bytes: *self.total_bytes,
        });
    }

    fn finish(&mut self) {}
}
