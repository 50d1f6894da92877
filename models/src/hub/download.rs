//! Files of a hub repository into the cache, through hf-hub.

use std::env;
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};

use super::{Download, Hub, RepoName};
use crate::weights::{INDEX, SINGLE, shard_names};

const CONFIG: &str = "config.json";

/// Files that are fetched where the repository has them.
const COMPANIONS: [&str; 6] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];

/// Tries of a download; each goes on where the last one broke off.
const RETRIES: usize = 3;

impl Hub {
    pub(super) fn download(
        &self,
        name: &RepoName,
        progress: &mut dyn FnMut(Download),
    ) -> Result<PathBuf, String> {
        let cache = match &self.cache {
            Some(path) => Cache::new(path.clone()),
            None => Cache::from_env(),
        };
        let mut builder = ApiBuilder::from_cache(cache.clone()).with_retries(RETRIES);
        if let Some(endpoint) = self
            .endpoint
            .clone()
            .or_else(|| env::var("HF_ENDPOINT").ok())
        {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_string());
        }
        let api = builder.build().map_err(|error| error.to_string())?;
        let asked = repo_at(name, &name.revision);
        match api.repo(asked.clone()).info() {
            Ok(info) => {
                let files: Vec<&str> = info.siblings.iter().map(|f| f.rfilename.as_str()).collect();
                // From here on by commit: a push in the meantime must not mix two versions.
                let commit = Fetch {
                    api: &api,
                    cache: &cache,
                    repo: repo_at(name, &info.sha),
                };
                let folder = commit.all(&files, progress)?;
                let noted = cache.repo(asked).create_ref(&info.sha);
                noted.map_err(|error| format!("cannot write its cache: {error}"))?;
                Ok(folder)
            }
            Err(error) => match cache
                .repo(asked)
                .get(CONFIG)
                .as_deref()
                .and_then(Path::parent)
            {
                Some(folder) => Ok(folder.to_path_buf()),
                None => Err(format!(
                    "there is no such folder, and the hub did not give {}@{}: {error}",
                    name.repo, name.revision
                )),
            },
        }
    }
}

fn repo_at(name: &RepoName, revision: &str) -> Repo {
    Repo::with_revision(name.repo.clone(), RepoType::Model, revision.to_string())
}

/// One commit of a repository.
struct Fetch<'a> {
    api: &'a Api,
    cache: &'a Cache,
    repo: Repo,
}

impl Fetch<'_> {
    /// Fetches what a model folder needs of `files`, and gives the folder.
    fn all(&self, files: &[&str], progress: &mut dyn FnMut(Download)) -> Result<PathBuf, String> {
        let config = self.one(CONFIG, files, progress)?;
        for file in COMPANIONS {
            if files.contains(&file) {
                self.one(file, files, progress)?;
            }
        }
        if files.contains(&SINGLE) {
            self.one(SINGLE, files, progress)?;
        } else if files.contains(&INDEX) {
            let index = self.one(INDEX, files, progress)?;
            for shard in shard_names(&index).map_err(|error| error.to_string())? {
                self.one(&shard, files, progress)?;
            }
        } else {
            return Err(format!("the repository has neither {SINGLE} nor {INDEX}"));
        }
        let folder = config.parent().map(Path::to_path_buf);
        folder.ok_or_else(|| "the cache has no folder".to_string())
    }

    fn one(
        &self,
        file: &str,
        files: &[&str],
        progress: &mut dyn FnMut(Download),
    ) -> Result<PathBuf, String> {
        if !files.contains(&file) {
            return Err(format!("the repository has no {file}"));
        }
        if let Some(path) = self.cache.repo(self.repo.clone()).get(file) {
            return Ok(path);
        }
        let report = Report {
            file,
            done_bytes: 0,
            total_bytes: 0,
            progress,
        };
        let fetched = self
            .api
            .repo(self.repo.clone())
            .download_with_progress(file, report);
        fetched.map_err(|error| format!("cannot download {file}: {error}"))
    }
}

/// Turns hf-hub's steps into [`Download`]s.
struct Report<'a> {
    file: &'a str,
    done_bytes: u64,
    total_bytes: u64,
    progress: &'a mut dyn FnMut(Download),
}

impl Progress for Report<'_> {
    fn init(&mut self, size: usize, _file: &str) {
        (self.done_bytes, self.total_bytes) = (0, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.done_bytes += size as u64;
        (self.progress)(Download {
            file: self.file,
            done_bytes: self.done_bytes,
            total_bytes: self.total_bytes,
        });
    }

    fn finish(&mut self) {}
}
